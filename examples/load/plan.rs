//! What a run is made of: the log objects, and when their messages are sent.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::generator::Generator;

/// Bodies that differ are kept up to this size in all; after it they are used again.
const BODIES: usize = 256 << 20;

/// The order of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Scenario {
    /// Everything is on the queue before the clock starts.
    Backlog,
    /// One message at a time, to a daemon that has nothing else to do.
    Latency,
    /// A backlog of big objects, and small ones that arrive meanwhile. Half of the objects are small.
    Fair,
}

/// Sizes of objects, as numbers of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes(pub Range<u32>);

impl std::str::FromStr for Sizes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.trim().parse::<u32>().with_context(|| format!("\"{text}\" is no number"));
        let (low, high) = (number(low)?, number(high)?);
        ensure!(low > 0 && low <= high, "\"{text}\" is neither a number of records nor a range such as 1-50");
        Ok(Self(low..high.saturating_add(1)))
    }
}

/// What the server is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub scenario: Scenario,
    pub objects: u64,
    pub records: Sizes,
    /// The share of records that match a rule of the default pack.
    pub matches: f64,
    /// The share of objects that repeat an earlier one, as a second trail does.
    pub duplicates: f64,
    /// How long each call takes at least.
    pub latency: Duration,
    /// Times are kept for each object.
    pub timed: bool,
    pub seed: u64,
}

/// One log object's content.
#[derive(Clone, Debug)]
pub struct Body {
    pub gzip: Bytes,
    pub records: u64,
    pub decompressed: u64,
    pub matches: u64,
}

/// The objects of a plan.
#[derive(Debug)]
pub struct Objects {
    bodies: Vec<Body>,
    /// From object to body.
    uses: Vec<u32>,
    count: u64,
    /// Objects before this one are big, in [`Scenario::Fair`].
    pub big: u64,
}

impl Objects {
    pub fn make(plan: &Plan) -> anyhow::Result<Self> {
        let mut generator = Generator::new(plan.seed);
        let mut random = fastrand::Rng::with_seed(plan.seed);
        let big = if plan.scenario == Scenario::Fair { plan.objects - plan.objects / 2 } else { 0 };
        let (mut bodies, mut uses, mut size) = (Vec::new(), Vec::new(), 0);
        let mut big_bodies = 0;
        for object in 0..plan.objects {
            // A long run uses its bodies again: in order, so that each is used as often.
            if size > BODIES || bodies.len() >= 20_000 {
                ensure!(
                    plan.matches == 0.0,
                    "these objects do not fit into memory, and used again they would match again"
                );
                break;
            }
            let small = object >= big;
            let first = if plan.scenario == Scenario::Fair && small { big_bodies } else { 0 };
            let last = u32::try_from(bodies.len())?;
            if last > first && random.f64() < plan.duplicates {
                uses.push(random.u32(first..last));
                continue;
            }
            let one = plan.scenario == Scenario::Latency || (plan.scenario == Scenario::Fair && small);
            let body = if one {
                generator.one_match()?
            } else {
                generator.body(random.u32(plan.records.0.clone()), plan.matches)?
            };
            size += body.gzip.len();
            bodies.push(body);
            uses.push(last);
            if !small {
                big_bodies = last + 1;
            }
        }
        if bodies.is_empty() {
            bail!("a run has at least one object");
        }
        Ok(Self { bodies, uses, count: plan.objects, big })
    }

    pub fn body(&self, object: u64) -> Option<&Body> {
        if object >= self.count {
            return None;
        }
        let place = usize::try_from(object).ok()? % self.uses.len().max(1);
        self.bodies.get(usize::try_from(*self.uses.get(place)?).ok()?)
    }

    /// Each distinct body once.
    pub fn distinct(&self) -> &[Body] {
        &self.bodies
    }

    pub fn all(&self) -> impl Iterator<Item = &Body> {
        (0..self.count).filter_map(|object| self.body(object))
    }
}

/// The key of an object, and back.
pub fn key(object: u64) -> String {
    format!(
        "AWSLogs/111122223333/CloudTrail/eu-central-1/2026/05/01/\
         111122223333_CloudTrail_eu-central-1_20260501T1200Z_{object:016}.json.gz"
    )
}

pub fn object_of(key: &str) -> Option<u64> {
    key.strip_suffix(".json.gz")?.rsplit_once('_')?.1.parse().ok()
}
