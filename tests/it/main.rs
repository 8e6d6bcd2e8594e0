//! The integration tests: one binary, so that the SDK is linked once.

mod architecture;
mod cli;
mod contract;
mod fakes;
mod sim;
