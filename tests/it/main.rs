//! The integration tests: one binary, so that the SDK is linked once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and clippy only knows test functions, not their helpers"
)]

mod architecture;
mod bad_input;
mod calls;
mod cli;
mod contract;
mod correlations;
#[cfg(feature = "emulator")]
mod daemon;
#[cfg(feature = "emulator")]
mod demo;
#[cfg(feature = "emulator")]
mod dlq;
#[cfg(feature = "emulator")]
mod doctor;
#[cfg(feature = "emulator")]
mod events;
mod fakes;
mod faults;
mod groups;
#[cfg(feature = "emulator")]
mod memory;
#[cfg(feature = "emulator")]
mod noise;
mod observability;
mod outages;
#[cfg(feature = "emulator")]
mod process;
#[cfg(feature = "emulator")]
mod process_faults;
mod promises;
#[cfg(feature = "emulator")]
mod proxy;
mod refused;
#[cfg(feature = "emulator")]
mod replay;
mod rules_cli;
#[cfg(feature = "emulator")]
mod scan;
mod shared_data;
mod shared_rules;
mod sim;
mod threads;
mod wire;
mod withheld;
