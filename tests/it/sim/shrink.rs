//! Makes a failing list shorter and simpler while it goes on failing.

use super::op::{Failure, Op};

/// How often a list is played while it shrinks.
const RUNS: usize = 400;

/// The shortest and simplest list found that still fails.
pub fn shrink(list: &[Op], mut fails: impl FnMut(&[Op]) -> bool) -> Vec<Op> {
    let mut list = list.to_vec();
    let mut runs = RUNS;
    let mut still_fails = |candidate: &[Op]| {
        runs = runs.saturating_sub(1);
        runs > 0 && fails(candidate)
    };
    loop {
        let before = list.clone();
        // Halves first, then quarters, down to single operations.
        let mut length = list.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < list.len() {
                let without: Vec<_> = list[..at].iter().chain(list.iter().skip(at + length)).copied().collect();
                if still_fails(&without) {
                    list = without;
                } else {
                    at += length;
                }
            }
            if length == 1 {
                break;
            }
            length = length.div_ceil(2);
        }
        for at in 0..list.len() {
            // Each success may allow another of the same kind.
            while let Some(simpler) = simpler(list[at]).into_iter().find(|op| {
                let mut candidate = list.clone();
                candidate[at] = *op;
                still_fails(&candidate)
            }) {
                list[at] = simpler;
            }
        }
        if list == before {
            return list;
        }
    }
}

/// The same operation with less of something; the greatest step first.
fn simpler(op: Op) -> Vec<Op> {
    let mut all = match op {
        Op::Deliver { first, count } => steps(first, count, |first, count| Op::Deliver { first, count }),
        Op::SecondTrail { first, count } => steps(first, count, |first, count| Op::SecondTrail { first, count }),
        Op::Burst { first, count } => steps(first, count, |first, count| Op::Burst { first, count }),
        Op::Bundle { first, count, other } => steps(first, count, |first, count| Op::Bundle { first, count, other }),
        Op::Again { back } => vec![Op::Again { back: back / 2 }],
        Op::Wait { milliseconds } => {
            vec![Op::Wait { milliseconds: milliseconds / 2 }, Op::Wait { milliseconds: milliseconds / 1000 * 1000 }]
        }
        Op::DieIn { call, after, how } => vec![Op::DieIn { call, after: after / 2, how }],
        Op::Fail { call, count, how } => {
            vec![Op::Fail { call, count: count.div_ceil(2), how }, Op::Fail { call, count, how: Failure::Down }]
        }
        Op::Hang { call, count, done } => vec![Op::Hang { call, count: count.div_ceil(2), done }],
        Op::Slow { call, milliseconds } => vec![Op::Slow { call, milliseconds: milliseconds / 2 }],
        Op::Outage { service, seconds, how } => vec![
            Op::Outage { service, seconds: seconds.div_ceil(2), how },
            Op::Outage { service, seconds, how: Failure::Down },
        ],
        Op::Standstill { service, seconds } => vec![Op::Standstill { service, seconds: seconds.div_ceil(2) }],
        Op::Throttling { service, seconds } => vec![Op::Throttling { service, seconds: seconds.div_ceil(2) }],
        Op::Deny { seconds } => vec![Op::Deny { seconds: seconds.div_ceil(2) }],
        Op::Break { after } => vec![Op::Break { after: after / 2 }],
        Op::Stall { after } => vec![Op::Stall { after: after / 2 }],
        Op::EndLeases { .. } => vec![Op::EndLeases { every: false }],
        Op::Reload { any_key, any_stop, .. } => vec![Op::Reload { any_key, any_stop, all: true }],
        _ => Vec::new(),
    };
    all.retain(|simpler| *simpler != op);
    all
}

fn steps(first: u32, count: u32, op: impl Fn(u32, u32) -> Op) -> Vec<Op> {
    vec![op(first, 1), op(first, count.div_ceil(2)), op(first + count / 2, count - count / 2), op(first, count - 1)]
        .into_iter()
        .filter(|op| {
            !matches!(
                op,
                Op::Deliver { count: 0, .. }
                    | Op::SecondTrail { count: 0, .. }
                    | Op::Burst { count: 0, .. }
                    | Op::Bundle { count: 0, .. }
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::op::{Call, Death};
    use super::*;

    #[test]
    fn a_failing_list_shrinks_to_what_makes_it_fail() {
        let list: Vec<Op> = (0..40)
            .map(|at| match at {
                9 => Op::Deliver { first: 3, count: 40 },
                23 => Op::DieIn { call: Call::Mark, after: 3, how: Death::Before },
                _ => Op::Wait { milliseconds: at },
            })
            .collect();
        let mut runs = 0;
        let shrunk = shrink(&list, |list| {
            runs += 1;
            let delivered = list.iter().position(|op| matches!(op, Op::Deliver { first, count } if first + count > 7));
            let died = list.iter().position(|op| matches!(op, Op::DieIn { .. }));
            delivered.is_some_and(|delivered| died.is_some_and(|died| delivered < died))
        });
        let [Op::Deliver { first, count }, Op::DieIn { after: 0, .. }] = shrunk[..] else {
            panic!("not shrunk: {shrunk:?}");
        };
        assert!(first + count > 7 && count <= 5, "{shrunk:?}");
        assert!(runs < RUNS, "{runs} runs");
    }
}
