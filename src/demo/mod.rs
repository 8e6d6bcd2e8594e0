//! `trailhound demo`: an attacked account, told by the real daemon on the emulator.

mod story;

const BUCKET: &str = "example-cloudtrail-logs";
