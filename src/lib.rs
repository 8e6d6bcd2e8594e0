//! trailhound turns AWS CloudTrail into alerts. Read this file downward and you have read the way of the data.
//!
//! ```text
//! poller -> notification -> object -> cloudtrail -> rules -> alert -> deliver -> settle
//! ```
//!
//! Three groups, and one direction: the pure steps of the data path (`notification`, `cloudtrail`, `rules`, `alert`,
//! `claim`, `tracker`) know no AWS client, no clock, no metrics and no tasks; the other steps reach the outside only through the
//! ports; AWS SDK types stay under `aws`; only `deliver` can make a [`deliver::Delivered`], and deleting a message
//! takes one. `tests/it/architecture.rs` keeps it so.

// The data path, in the order in which a record travels.

/// Receives as many messages as can be started at once, and never more.
pub mod poller;

/// Keeps a received message invisible to others for as long as it is worked on.
pub mod lease;

/// How many alerts a minute leave this process.
pub mod limit;

/// Takes one message from its receipt to its settlement: the steps below, in order.
pub mod worker;

/// What a message body says: objects to read, records in the message itself, or nothing for us. Pure.
pub mod notification;

/// Reads one log object: opens it, resumes a broken body, drives the decoder.
pub mod object;

/// Decompresses a log object and finds one record after another, within limits. Pure.
pub mod cloudtrail;

/// The rule file, compiled, and the matching of one record against it. Pure.
pub mod rules;

/// What a match becomes: the event's identity and facts, the stored item, the rendered alert. Pure.
pub mod alert;

/// Who may publish an alert for an event: the protocol that every store speaks. Pure.
pub mod claim;

/// How many events a group holds and which of its steps were told: 1, 10, 100, ... Pure.
pub mod tracker;

/// Record, publish, mark: the only way to a [`deliver::Delivered`].
pub mod deliver;

/// Deletes what was delivered, in batches, and gives back what was not.
pub mod settle;

// The edges: what the data path asks of the outside, and who answers.

/// The traits behind which AWS, the emulator and the tests' fakes stand, and the classes of their errors.
pub mod ports;

/// The adapters to SQS, S3, SNS and DynamoDB. No SDK type leaves this folder.
pub mod aws;

/// An AWS in this process, over HTTP on loopback, for the demo and the tests.
#[cfg(feature = "emulator")]
pub mod emulator;

// The process: what is needed to run the data path for months.

/// Clock, random source, tasks, compute pool and stop signal: everything that is not a port.
pub mod env;

/// Which dependency works, whether to take in more work, and whether the process is ready.
pub mod health;

/// What happened lately, for people.
pub mod journal;

/// What each rule did: hits, events, groups, alerts, and what exceptions withheld.
pub mod noise;

/// What every step that reaches outside is given.
pub mod context;

/// The one retry layer: a call is repeated until it works, cannot work, or does not matter any more.
pub mod retry;

/// `run(Ports, Env)`: the daemon, from the first check to the last message given back.
pub mod app;

/// Embedded defaults, a file, the environment: checked, with the origin of every value.
pub mod config;

/// Swaps the rule set whole, or keeps the old one.
pub mod reload;

/// The status page, `/livez`, `/readyz`, `/metrics`, `/version`, `/rules`, from a thread of their own.
pub mod admin;

/// Every metric, named in one place, and some of them for CloudWatch.
pub mod metrics;

/// Logs: JSON in a container, readable on a terminal.
pub mod telemetry;

// The tools: the same decoder and rules for the questions of people.

/// The step of `worker` for one message, on ports that change nothing: what would become of it now?
pub mod dry;

/// Which log objects a bucket holds, by account, region and day.
pub mod listing;

/// `trailhound scan`: log files of any kind, with nothing written anywhere.
pub mod scan;

/// `trailhound replay`: the past through the whole pipeline.
pub mod replay;

/// Stored events, read back for people.
pub mod events;

/// What `trailhound doctor` makes of an installation: plain facts in, findings out. Pure.
pub mod doctor;

/// The command line.
pub mod cli;

/// `trailhound demo`: an attacked account, told by the real daemon on the emulator.
#[cfg(feature = "emulator")]
pub mod demo;

/// What the fuzz targets check, and their seeds: part of the crate `fuzz`, and of the tests here.
#[cfg(test)]
mod fuzzing;
