//! When events of one key are enough to alert: thresholds, sequences, and keys that were not seen before.
//!
//! What meets a rule's correlation is an *episode*: the events of windows that meet it, windows that share an event or
//! overlap being one episode. A window reaches as far as it can: if the first of its events were enough, so are more. More events only ever make an episode longer, or join two, in whichever order they come; so
//! an episode is told once it was told at any place, and the same events give the same episodes whatever their order.
//!
//! A tracker holds the events of one bucket of time, as long as the window, so that whatever lies in a bucket is decided by
//! it and its two neighbours. What was told stands in the *head* of the key, as spans of time.

use std::collections::{BTreeMap, BTreeSet};

use crate::rules::{Correlation, FirstSeen, Sequence, Threshold};

/// Spans of a key that are remembered as told; the earliest are forgotten first.
const MAX_TOLD: usize = 200;

pub(super) const DAY: i64 = 86_400;

/// An event, as far as correlations go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Seconds since the epoch.
    pub at: i64,
    /// Of a sequence: the steps that the event meets, a bit for each.
    pub steps: u8,
    /// A part of the hash of the event's id; empty where one entry stands for all events of a day.
    pub id: String,
    /// Of a threshold on distinct values: the hash of this event's.
    pub value: Option<String>,
}

impl Entry {
    /// Words, as an item holds them.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { at, steps, id, value } = self;
        value.as_ref().map_or_else(|| format!("{at} {steps} {id}"), |value| format!("{at} {steps} {id} {value}"))
    }

    /// Reads what [`Self::text`] writes.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        Some(Self {
            at: words.next()?.parse().ok()?,
            steps: words.next()?.parse().ok()?,
            id: words.next()?.to_owned(),
            value: words.next().map(str::to_owned),
        })
    }
}

/// From one second to another, both within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub from: i64,
    pub to: i64,
}

impl Span {
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        self.from <= other.to && other.from <= self.to
    }

    #[must_use]
    pub fn holds(self, at: i64) -> bool {
        self.from <= at && at <= self.to
    }

    #[must_use]
    pub fn text(self) -> String {
        format!("{}/{}", self.from, self.to)
    }

    /// Reads what [`Self::text`] writes.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('/')?;
        Some(Self { from: from.parse().ok()?, to: to.parse().ok()? })
    }
}

/// The episodes of these events, in the order of time; no two meet.
#[must_use]
pub fn episodes(correlation: &Correlation, entries: &BTreeSet<Entry>) -> Vec<Span> {
    let window = i64::try_from(correlation.seconds()).unwrap_or(i64::MAX);
    let mut entries: Vec<&Entry> = entries.iter().collect();
    // Events of one second are as if in the order of the steps: what can be an earlier step comes first, and of these what
    // can be nothing else.
    entries.sort_by_key(|entry| (entry.at, entry.steps.trailing_zeros(), entry.steps));
    let mut spans = match correlation {
        Correlation::Threshold(Threshold { count, distinct: None, .. }) => counted(&entries, *count),
        Correlation::Threshold(Threshold { count, distinct: Some(_), .. }) => distinct(&entries, *count, window),
        Correlation::Sequence(Sequence { steps, .. }) => sequences(&entries, steps, window),
        Correlation::FirstSeen(FirstSeen { .. }) => {
            // Whoever was seen is known for as long as the window.
            let known = |entry: &&Entry| Span { from: entry.at, to: entry.at.saturating_add(window.saturating_sub(1)) };
            return joined(entries.iter().map(known).collect());
        }
    };
    spans.retain(|span| span.to.saturating_sub(span.from) < window);
    joined(spans)
}

/// From each event to the last of the `count` that begin with it.
fn counted(entries: &[&Entry], count: u32) -> Vec<Span> {
    let count = usize::try_from(count).unwrap_or(usize::MAX).max(1);
    entries.windows(count).filter_map(|some| Some(Span { from: some.first()?.at, to: some.last()?.at })).collect()
}

/// From each event to the last of its window, where there are `count` values.
fn distinct(entries: &[&Entry], count: u32, window: i64) -> Vec<Span> {
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    let entries: Vec<(i64, &str)> =
        entries.iter().filter_map(|entry| Some((entry.at, entry.value.as_deref()?))).collect();
    let (mut spans, mut values) = (Vec::new(), BTreeMap::<&str, usize>::new());
    let (mut ahead, mut last) = (entries.iter().peekable(), 0);
    for (from, value) in &entries {
        while let Some((at, value)) = ahead.next_if(|(at, _)| at.saturating_sub(*from) < window) {
            *values.entry(value).or_default() += 1;
            last = *at;
        }
        if values.len() >= wanted {
            spans.push(Span { from: *from, to: last });
        }
        if let Some(held) = values.get_mut(value) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                values.remove(value);
            }
        }
    }
    spans
}

/// From each event of the first step, if all steps were gone after it in time, to the last of the last step in its window.
fn sequences(entries: &[&Entry], steps: &[u32], window: i64) -> Vec<Span> {
    // Where the events of each step stand.
    let bits = (0..u8::BITS).map_while(|step| 1_u8.checked_shl(step));
    let places: Vec<Vec<usize>> = bits
        .take(steps.len())
        .map(|bit| {
            let of_step = entries.iter().enumerate().filter(|(_, entry)| entry.steps & bit != 0);
            of_step.map(|(place, _)| place).collect()
        })
        .collect();
    let time = |place: &usize| entries.get(*place).map(|entry| entry.at);
    let end = |start: usize| {
        places.iter().zip(steps).try_fold(start, |from, (places, count)| {
            let first = places.partition_point(|place| *place < from);
            let last = first.checked_add(usize::try_from(*count).ok()?.checked_sub(1)?)?;
            Some(places.get(last)?.saturating_add(1))
        })
    };
    let ends = places.last().map(Vec::as_slice).unwrap_or_default();
    let span = |start: &usize| {
        let from = time(start)?;
        let within = |place: &usize| time(place).is_some_and(|at| at.saturating_sub(from) < window);
        let first = end(*start)?.checked_sub(1)?;
        let last = ends.get(ends.partition_point(within).checked_sub(1)?)?;
        (within(&first)).then_some(Span { from, to: time(last)? })
    };
    places.first().into_iter().flatten().filter_map(span).collect()
}

/// Spans that meet, made one.
pub(super) fn joined(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut joined: Vec<Span> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if last.meets(span) => last.to = last.to.max(span.to),
            _ => joined.push(span),
        }
    }
    joined
}

/// What is told once this episode is, too. It stays, also where it is the earliest: else it would be due for ever.
pub(super) fn told_with(told: &[Span], episode: Span) -> Vec<Span> {
    let (new, others): (Vec<_>, Vec<_>) =
        joined(told.iter().copied().chain([episode]).collect()).into_iter().partition(|span| span.meets(episode));
    let mut all = room_for_one(&others);
    all.extend(new);
    all.sort_unstable();
    all
}

/// What stays remembered as told where one more is to be. An item holds 400 KB, and keys may go on for years.
#[must_use]
pub fn room_for_one(told: &[Span]) -> Vec<Span> {
    let mut all = told.to_vec();
    all.sort_unstable();
    all.drain(..all.len().saturating_sub(MAX_TOLD.saturating_sub(1)));
    all
}

/// Whether an event at this time belongs to what was told and makes none of it longer, whatever else is there. A window
/// that it completes may reach beyond what was told, and then joins what lies there.
pub(super) fn is_within(correlation: &Correlation, told: &[Span], at: i64) -> bool {
    let reach = match correlation {
        // Each day is an episode by itself.
        Correlation::FirstSeen(_) => 0,
        _ => i64::try_from(correlation.seconds()).unwrap_or(i64::MAX).saturating_sub(1),
    };
    let (from, to) = (at.saturating_sub(reach), at.saturating_add(reach));
    told.iter().any(|told| told.holds(from) && told.holds(to))
}

/// What is due in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// All that is there was told, or there is nothing.
    Nothing,
    /// This episode was told; it must be remembered for what comes later.
    Remember(Span),
    /// This one was not told.
    Tell(Span),
}

/// Looks at the episodes of a bucket, given the events of it and of its neighbours.
pub(super) fn due(correlation: &Correlation, entries: &BTreeSet<Entry>, told: &[Span], bucket: Span) -> Due {
    let mut remember = None;
    for episode in episodes(correlation, entries) {
        if !entries.iter().any(|entry| bucket.holds(entry.at) && episode.holds(entry.at)) {
            continue;
        }
        let mut all = entries.iter().filter(|entry| episode.holds(entry.at));
        let Some(first) = all.next() else { continue };
        let last = all.next_back().unwrap_or(first);
        if !told.iter().any(|told| told.meets(episode)) {
            return Due::Tell(episode);
        }
        // How this episode hangs together with one that was told may lie beyond the neighbours of who comes later: all of it
        // must be known as told, in the neighbours too.
        let needed = Span { from: first.at, to: last.at };
        if !told.iter().any(|told| told.holds(needed.from) && told.holds(needed.to)) {
            remember.get_or_insert(episode);
        }
    }
    remember.map_or(Due::Nothing, Due::Remember)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::Limits;

    fn threshold(count: u32, window: &str, distinct: Option<&str>) -> Correlation {
        Correlation::Threshold(Threshold {
            count,
            window: window.to_owned(),
            by: vec!["userIdentity.arn".to_owned()],
            distinct: distinct.map(str::to_owned),
            limits: Limits::default(),
        })
    }

    fn sequence(steps: &[u32], window: &str) -> Correlation {
        let by = vec!["sourceIPAddress".to_owned()];
        Correlation::Sequence(Sequence {
            steps: steps.to_vec(),
            asks: String::new(),
            window: window.to_owned(),
            by,
            limits: Limits::default(),
        })
    }

    fn first_seen(within: &str) -> Correlation {
        let by = vec!["sourceIPAddress".to_owned()];
        Correlation::FirstSeen(FirstSeen { by, within: within.to_owned(), limits: Limits::default() })
    }

    fn at(times: &[i64]) -> BTreeSet<Entry> {
        (0..).zip(times).map(|(id, at)| Entry { at: *at, steps: 0, id: format!("{id:04}"), value: None }).collect()
    }

    fn of(all: &[(i64, u8, Option<&str>)]) -> BTreeSet<Entry> {
        let entry = |(id, (at, steps, value)): (u32, &(i64, u8, Option<&str>))| Entry {
            at: *at,
            steps: *steps,
            id: format!("{id:04}"),
            value: value.map(str::to_owned),
        };
        (0..).zip(all).map(entry).collect()
    }

    fn spans(all: &[(i64, i64)]) -> Vec<Span> {
        all.iter().map(|(from, to)| Span { from: *from, to: *to }).collect()
    }

    #[test]
    fn an_entry_and_a_span_are_their_texts() {
        for entry in [of(&[(-5, 3, Some("abc"))]), of(&[(1_714_564_800, 0, None)])].concat_all() {
            assert_eq!(Entry::read(&entry.text()), Some(entry));
        }
        let day = Entry { at: DAY, steps: 0, id: String::new(), value: None };
        assert_eq!(Entry::read(&day.text()), Some(day));
        assert_eq!(Span::read(&Span { from: -1, to: 5 }.text()), Some(Span { from: -1, to: 5 }));
        assert_eq!((Entry::read("x"), Span::read("1")), (None, None));
    }

    trait ConcatAll {
        fn concat_all(self) -> Vec<Entry>;
    }

    impl<const N: usize> ConcatAll for [BTreeSet<Entry>; N] {
        fn concat_all(self) -> Vec<Entry> {
            self.into_iter().flatten().collect()
        }
    }

    #[test]
    fn a_threshold_is_met_by_so_many_within_less_than_the_window() {
        let three = threshold(3, "10s", None);
        assert_eq!(episodes(&three, &at(&[0, 5, 9])), spans(&[(0, 9)]));
        assert_eq!(episodes(&three, &at(&[0, 5, 10])), [], "the window is as long as it says, and no longer");
        assert_eq!(episodes(&three, &at(&[0, 0, 0])), spans(&[(0, 0)]));
        assert_eq!(episodes(&three, &at(&[0, 1, 2, 9, 11, 30, 31, 32])), spans(&[(0, 11), (30, 32)]));
        assert_eq!(episodes(&three, &at(&[0, 1])), []);
    }

    #[test]
    fn distinct_values_count_once() {
        let three = threshold(3, "10s", Some("eventName"));
        let values = |all: &[(i64, &str)]| of(&all.iter().map(|(at, v)| (*at, 0, Some(*v))).collect::<Vec<_>>());
        assert_eq!(episodes(&three, &values(&[(0, "a"), (1, "a"), (2, "b"), (3, "a")])), []);
        assert_eq!(episodes(&three, &values(&[(0, "a"), (1, "a"), (2, "b"), (8, "c")])), spans(&[(0, 8)]));
        assert_eq!(episodes(&three, &values(&[(0, "a"), (4, "a"), (5, "b"), (12, "c")])), spans(&[(4, 12)]));
        assert_eq!(
            episodes(&three, &values(&[(0, "a"), (1, "b"), (2, "c"), (9, "c")])),
            spans(&[(0, 9)]),
            "as far as it can"
        );
        assert_eq!(episodes(&three, &of(&[(0, 0, None), (1, 0, None), (2, 0, None)])), [], "what has no value is none");
    }

    #[test]
    fn a_sequence_is_met_by_one_step_after_the_other() {
        let two_then_one = sequence(&[2, 1], "60s");
        let (failure, success) = (1, 2);
        let all = |all: &[(i64, u8)]| of(&all.iter().map(|(at, steps)| (*at, *steps, None)).collect::<Vec<_>>());
        assert_eq!(episodes(&two_then_one, &all(&[(0, failure), (10, failure), (20, success)])), spans(&[(0, 20)]));
        let twice = [(0, failure), (10, failure), (20, success), (59, success), (60, success)];
        assert_eq!(episodes(&two_then_one, &all(&twice)), spans(&[(0, 59)]));
        assert_eq!(episodes(&two_then_one, &all(&[(0, success), (10, failure), (20, failure)])), []);
        assert_eq!(episodes(&two_then_one, &all(&[(0, failure), (20, success)])), [], "one failure is not enough");
        assert_eq!(episodes(&two_then_one, &all(&[(0, failure), (1, failure), (60, success)])), [], "too late");
        assert_eq!(episodes(&two_then_one, &all(&[(5, failure), (5, failure), (5, success)])), spans(&[(5, 5)]));
        // An event that meets both steps is one of them only.
        assert_eq!(episodes(&sequence(&[1, 1], "60s"), &all(&[(5, 3)])), []);
        assert_eq!(episodes(&sequence(&[1, 1], "60s"), &all(&[(5, 3), (6, 3)])), spans(&[(5, 6)]));
    }

    #[test]
    fn events_of_one_second_come_in_the_order_of_the_steps() {
        let all = |steps: &[u8]| of(&steps.iter().map(|steps| (5, *steps, None)).collect::<Vec<_>>());
        let (first, second) = (1, 2);
        for one_second in [[first, second], [first, first | second], [first | second, second]] {
            assert_eq!(episodes(&sequence(&[1, 1], "60s"), &all(&one_second)), spans(&[(5, 5)]), "{one_second:?}");
        }
    }

    #[test]
    fn who_was_seen_is_known_for_so_long() {
        let days = |all: &[i64]| at(&all.iter().map(|day| day * DAY).collect::<Vec<_>>());
        let within = first_seen("3d");
        assert_eq!(episodes(&within, &days(&[0, 2, 4])), spans(&[(0, 7 * DAY - 1)]));
        assert_eq!(episodes(&within, &days(&[0, 3])), spans(&[(0, 3 * DAY - 1), (3 * DAY, 6 * DAY - 1)]));
    }

    #[test]
    fn what_was_told_anywhere_is_told_and_remembered_in_each_bucket_that_it_reaches() {
        let two = threshold(2, "10s", None);
        let bucket = |number: i64| Span { from: number * 10, to: number * 10 + 9 };
        let entries = at(&[1, 5, 12, 19, 25]);
        assert_eq!(due(&two, &entries, &[], bucket(1)), Due::Tell(Span { from: 1, to: 25 }));
        let told = spans(&[(1, 5)]);
        assert_eq!(due(&two, &at(&[1, 5, 40]), &told, bucket(0)), Due::Nothing);
        assert_eq!(due(&two, &entries, &told, bucket(0)), Due::Remember(Span { from: 1, to: 25 }));
        assert_eq!(due(&two, &entries, &told, bucket(1)), Due::Remember(Span { from: 1, to: 25 }));
        let told = told_with(&told, Span { from: 1, to: 25 });
        assert_eq!(told, spans(&[(1, 25)]));
        assert_eq!(due(&two, &entries, &told, bucket(1)), Due::Nothing);
        assert_eq!(due(&two, &entries, &[], bucket(7)), Due::Nothing);
        assert_eq!(due(&two, &at(&[1, 5, 40, 41]), &spans(&[(1, 5)]), bucket(4)), Due::Tell(Span { from: 40, to: 41 }));
    }

    #[test]
    fn the_latest_two_hundred_are_remembered() {
        let mut told = Vec::new();
        for number in 0..300 {
            told = told_with(&told, Span { from: number * 100, to: number * 100 + 1 });
        }
        assert_eq!(
            (told.len(), told.first(), told.last()),
            (200, Some(&Span { from: 10_000, to: 10_001 }), Some(&Span { from: 29_900, to: 29_901 }))
        );
    }

    #[test]
    fn what_was_just_told_is_remembered_however_old_it_is() {
        let mut told: Vec<_> = (1..=200).map(|number| Span { from: number * 100, to: number * 100 + 1 }).collect();
        told = told_with(&told, Span { from: 0, to: 1 });
        assert_eq!((told.len(), told.first()), (200, Some(&Span { from: 0, to: 1 })));
        told.push(Span { from: 90_000, to: 90_001 });
        told = room_for_one(&told);
        assert_eq!((told.len(), told.first()), (199, Some(&Span { from: 300, to: 301 })));
    }

    /// Tells what is due once an event came at `at`, to a rule with ten seconds: only the bucket and its neighbours are
    /// looked at. Gives what was told.
    fn tell(rule: &Correlation, known: &BTreeSet<Entry>, told: &mut Vec<Span>, at: i64) -> Vec<Span> {
        let bucket = Span { from: at.div_euclid(10) * 10, to: at.div_euclid(10) * 10 + 9 };
        let near = known.iter().filter(|it| it.at >= bucket.from - 10 && it.at <= bucket.to + 10);
        let near: BTreeSet<Entry> = near.cloned().collect();
        let mut tellings = Vec::new();
        if is_within(rule, told, at) {
            // It is settled as it is counted.
            return tellings;
        }
        loop {
            match due(rule, &near, told, bucket) {
                Due::Nothing => return tellings,
                Due::Remember(span) => *told = told_with(told, span),
                Due::Tell(span) => {
                    tellings.push(span);
                    *told = told_with(told, span);
                }
            }
        }
    }

    /// Each window that meets it, looked for in the simplest way.
    fn naive(count: usize, window: i64, times: &[i64]) -> Vec<Span> {
        let mut found = Vec::new();
        for from in times {
            for to in times.iter().filter(|to| *to >= from && *to - from < window) {
                if times.iter().filter(|at| *at >= from && *at <= to).count() >= count {
                    found.push(Span { from: *from, to: *to });
                }
            }
        }
        joined(found)
    }

    proptest! {
        #[test]
        fn episodes_are_what_the_simplest_search_finds(
            times in prop::collection::vec(0_i64..120, 0..30), count in 2_usize..5, window in 1_i64..30,
        ) {
            let rule = threshold(u32::try_from(count).unwrap(), &format!("{window}s"), None);
            let found = episodes(&rule, &at(&times));
            let wanted = naive(count, window, &times);
            // A naive window may begin before the events that meet it: its joined hull is the same.
            prop_assert_eq!(found.len(), wanted.len());
            for (one, other) in found.iter().zip(&wanted) {
                prop_assert!(one.meets(*other));
                prop_assert_eq!((one.from, one.to), (other.from, other.to));
            }
        }

        /// Whatever the order in which events come, each episode at the end was told, and none was told twice as it stood.
        #[test]
        fn each_episode_is_told_in_any_order(
            times in prop::collection::vec(0_i64..200, 1..40), count in 2_u32..4, distinct in any::<bool>(),
        ) {
            let rule = threshold(count, "10s", distinct.then_some("eventName"));
            let (mut told, mut tellings, mut known) = (Vec::new(), Vec::new(), BTreeSet::new());
            for (id, at) in (0_u32..).zip(&times) {
                let value = distinct.then(|| format!("{}", at % 7));
                known.insert(Entry { at: *at, steps: 0, id: format!("{id:04}"), value });
                for span in tell(&rule, &known, &mut told, *at) {
                    prop_assert!(!tellings.iter().any(|before: &Span| before.meets(span)));
                    tellings.push(span);
                }
            }
            let last = episodes(&rule, &known);
            for episode in &last {
                prop_assert!(tellings.iter().any(|told| told.meets(*episode)), "{episode:?} was not told");
            }
            for told in &tellings {
                prop_assert!(last.iter().any(|episode| episode.meets(*told)), "{told:?} was told for nothing");
            }
        }

        /// Whatever the order in which events come, what is told belongs to no episode that was told before, wherever that was.
        #[test]
        fn what_was_told_is_not_told_again(
            events in prop::collection::vec((0_i64..150, 1_u8..4), 1..40), count in 2_u32..4, kind in 0..3,
        ) {
            let rule = match kind {
                0 => threshold(count, "10s", None),
                1 => threshold(count, "10s", Some("eventName")),
                _ => sequence(&[count - 1, 1], "10s"),
            };
            let (mut told, mut tellings, mut known) = (Vec::new(), Vec::<Span>::new(), BTreeSet::new());
            for (id, (at, steps)) in (0_u32..).zip(&events) {
                known.insert(Entry { at: *at, steps: *steps, id: format!("{id:04}"), value: Some(format!("{}", at % 7)) });
                for span in tell(&rule, &known, &mut told, *at) {
                    let all = episodes(&rule, &known);
                    let whole = all.iter().find(|episode| episode.meets(span)).copied();
                    prop_assert!(whole.is_some(), "{span:?} is no episode");
                    let again = tellings.iter().find(|before| whole.is_some_and(|whole| whole.meets(**before)));
                    prop_assert!(again.is_none(), "{span:?} is of {whole:?}, which {again:?} told");
                    tellings.push(span);
                }
            }
            for episode in episodes(&rule, &known) {
                prop_assert!(tellings.iter().any(|told| told.meets(episode)), "{episode:?} was not told");
            }
        }

        /// In the order of time, each episode is told once.
        #[test]
        fn in_the_order_of_time_each_is_told_once(mut times in prop::collection::vec(0_i64..300, 1..60)) {
            times.sort_unstable();
            let rule = threshold(3, "10s", None);
            let (mut told, mut tellings, mut known) = (Vec::new(), 0, BTreeSet::new());
            for (id, at) in (0_u32..).zip(&times) {
                known.insert(Entry { at: *at, steps: 0, id: format!("{id:04}"), value: None });
                tellings += tell(&rule, &known, &mut told, *at).len();
            }
            prop_assert_eq!(tellings, episodes(&rule, &known).len());
        }
    }
}
