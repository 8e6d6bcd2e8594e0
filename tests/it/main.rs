//! The integration tests: one binary, so that the SDK is linked once.

mod architecture;
mod contract;
mod fakes;
mod faults;
mod sim;
