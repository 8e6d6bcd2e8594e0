//! The pure steps of the daemon, and what the fuzz targets check of them (`fuzzing`).
//!
//! They are compiled from their sources, without the daemon around them: nothing that is fuzzed needs an AWS client, and
//! with these, instrumented, a build takes many times as long. `tests/it/architecture.rs` keeps the steps free of the rest.

// What the daemon uses and the targets do not is not dead.
#![allow(dead_code, unreachable_pub, unused_imports)]

#[path = "../../src/notification/mod.rs"]
pub mod notification;

#[path = "../../src/cloudtrail/mod.rs"]
pub mod cloudtrail;

#[path = "../../src/rules/mod.rs"]
pub mod rules;

#[path = "../../src/alert/mod.rs"]
pub mod alert;

#[path = "../../src/claim.rs"]
pub mod claim;

#[path = "../../src/tracker/mod.rs"]
pub mod tracker;

#[path = "../../src/fuzzing/mod.rs"]
pub mod fuzzing;
