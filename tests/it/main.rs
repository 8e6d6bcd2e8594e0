//! The integration tests: one binary, so that the SDK is linked once.

mod architecture;
mod cli;
mod contract;
#[cfg(feature = "emulator")]
mod daemon;
#[cfg(feature = "emulator")]
mod demo;
mod fakes;
mod faults;
#[cfg(feature = "emulator")]
mod process;
mod sim;
mod wire;
