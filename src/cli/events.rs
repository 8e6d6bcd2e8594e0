//! `trailhound events ...`.
use clap::Subcommand;
use std::path::Path;
use super::Failure;
pub(super) const HELP: &str = "";
#[derive(Debug, Subcommand)]
pub(super) enum EventsCommand { List }
pub(super) fn run(_: Option<&Path>, _: EventsCommand) -> Result<(), Failure> { Ok(()) }
