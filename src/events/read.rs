//! Reading many events: the eight partitions of each day side by side, merged in the order of time, a page of each in
//! memory.

use std::collections::{BTreeMap, VecDeque};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use time::Date;

use super::{Filter, Range, Stored};
use crate::alert::EventKey;
use crate::ports::PortError;

/// Days whose first pages are asked for at once.
const DAYS_AHEAD: usize = 4;

/// Items that are asked for at once.
const ITEMS_AHEAD: usize = 32;

/// Not more than this is held of a scan, which finds in no order.
pub const HELD: usize = 100_000;

/// Where stored events are read. Each call is one request; the adapter repeats what fails for a moment.
#[async_trait]
pub trait EventReader: Send + Sync {
    /// How many partitions a day has.
    fn parts(&self) -> u8;

    /// Events of one partition of the index, in the order of their sort keys. What the filter may admit is among them;
    /// so may be what it does not.
    async fn page(&self, request: &PageRequest<'_>) -> Result<Page, PortError>;

    /// Any items of the table, trackers among them, without order.
    async fn scan(&self, range: &Range, detail: Detail, after: Option<&EventKey>) -> Result<Page, PortError>;

    /// One whole item; `None` where it expired, or was never there.
    async fn get(&self, key: &EventKey, detail: Detail) -> Result<Option<Stored>, PortError>;

    /// Whole items with this id: one, or several with different times.
    async fn of_id(&self, event_id: &str) -> Result<Vec<Stored>, PortError>;
}

/// What of an item is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Everything but the record.
    Attributes,
    Whole,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    NewestFirst,
    OldestFirst,
}

/// Where to go on in a partition of a day.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest<'a> {
    pub day: Date,
    pub part: u8,
    pub range: &'a Range,
    pub filter: &'a Filter,
    pub order: Order,
    /// The last item of the page before.
    pub after: Option<&'a EventKey>,
}

/// Items, and the one after which the next page begins.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub items: Vec<Stored>,
    pub next: Option<EventKey>,
}

/// Which events to read, and how much of each.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub range: Range,
    pub filter: &'a Filter,
    pub order: Order,
    pub detail: Detail,
}

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(
        "more than {HELD} events match, and a scan must hold them all to sort them: name a shorter time, or a --limit"
    )]
    TooMany,
}

pub type Events<'a> = BoxStream<'a, Result<Stored, PortError>>;

impl<'a> Question<'a> {
    /// The events in the order of their sort keys, by the index. That shows a part of each item, so that whatever may be
    /// asked for is read from the table. Memory: a page of each partition, of a few days at once.
    #[must_use]
    pub fn by_index(self, reader: &'a dyn EventReader) -> Events<'a> {
        let mut days = self.range.days();
        if self.order == Order::NewestFirst {
            days.reverse();
        }
        let opened = move |day| async move {
            let mut merged = Day::new(reader, self, day);
            merged.fill().await?;
            Ok::<_, PortError>(merged)
        };
        let found = stream::iter(days).map(opened).buffered(DAYS_AHEAD).map_ok(|merged| {
            stream::try_unfold(
                merged,
                |mut merged| async move { Ok(merged.next().await?.map(|event| (event, merged))) },
            )
        });
        found
            .try_flatten()
            .try_filter(move |part| std::future::ready(self.range.holds(part) && self.filter.may_admit(part)))
            .map_ok(move |part| async move { reader.get(&part.key, self.detail).await })
            .try_buffered(ITEMS_AHEAD)
            .try_filter_map(move |item| std::future::ready(Ok(item.filter(|item| self.filter.admits(item)))))
            .boxed()
    }

    /// The events as a scan of the whole table finds them.
    #[must_use]
    pub fn by_scan(self, reader: &'a dyn EventReader) -> Events<'a> {
        let pages = stream::try_unfold(Some(None::<EventKey>), move |after| async move {
            let Some(after) = after else { return Ok::<_, PortError>(None) };
            let page = reader.scan(&self.range, self.detail, after.as_ref()).await?;
            Ok(Some((page.items, page.next.map(Some))))
        });
        pages
            .map_ok(|items| stream::iter(items.into_iter().map(Ok)))
            .try_flatten()
            .try_filter(move |item| std::future::ready(self.range.holds(item) && self.filter.admits(item)))
            .boxed()
    }

    /// The first `limit` events of a scan in the order of their sort keys; without a limit all, up to [`HELD`].
    pub async fn by_sorted_scan(
        self,
        reader: &'a dyn EventReader,
        limit: Option<usize>,
    ) -> Result<Vec<Stored>, ReadError> {
        let mut found = self.by_scan(reader);
        let mut held = BTreeMap::new();
        let most = limit.unwrap_or(HELD).min(HELD);
        while let Some(item) = found.try_next().await? {
            held.insert((item.key.timestamp.clone(), item.key.event_id.clone()), item);
            if held.len() > most {
                match (limit, self.order) {
                    (None, _) => return Err(ReadError::TooMany),
                    (Some(limit), _) if limit > HELD => return Err(ReadError::TooMany),
                    (Some(_), Order::NewestFirst) => held.pop_first(),
                    (Some(_), Order::OldestFirst) => held.pop_last(),
                };
            }
        }
        let in_order = held.into_values();
        Ok(match self.order {
            Order::OldestFirst => in_order.collect(),
            Order::NewestFirst => in_order.rev().collect(),
        })
    }
}

/// The partitions of one day, merged.
struct Day<'a> {
    reader: &'a dyn EventReader,
    question: Question<'a>,
    date: Date,
    parts: Vec<Part>,
}

/// What was read of a partition and not given yet, and where it goes on.
struct Part {
    number: u8,
    read: VecDeque<Stored>,
    next: Next,
}

enum Next {
    First,
    After(EventKey),
    End,
}

impl<'a> Day<'a> {
    fn new(reader: &'a dyn EventReader, question: Question<'a>, date: Date) -> Self {
        let part = |number| Part { number, read: VecDeque::new(), next: Next::First };
        Self { reader, question, date, parts: (0..reader.parts()).map(part).collect() }
    }

    /// Reads on in every partition of which nothing is left, until each has something or has ended.
    async fn fill(&mut self) -> Result<(), PortError> {
        let Self { reader, question, date, parts } = self;
        let (reader, question, day) = (*reader, &*question, *date);
        let filled = parts.iter_mut().map(|part| async move {
            while part.read.is_empty() {
                let after = match &part.next {
                    Next::First => None,
                    Next::After(key) => Some(key),
                    Next::End => break,
                };
                let Question { range, filter, order, .. } = question;
                let request = PageRequest { day, part: part.number, range, filter, order: *order, after };
                let page = reader.page(&request).await?;
                part.read = page.items.into();
                part.next = page.next.map_or(Next::End, Next::After);
            }
            Ok(())
        });
        try_join_all(filled).await.map(drop)
    }

    async fn next(&mut self) -> Result<Option<Stored>, PortError> {
        self.fill().await?;
        let order = self.question.order;
        let heads = self.parts.iter_mut().filter(|part| !part.read.is_empty());
        let key =
            |part: &Part| part.read.front().map(|event| (event.key.timestamp.clone(), event.key.event_id.clone()));
        let first = match order {
            Order::OldestFirst => heads.min_by_key(|part| key(part)),
            Order::NewestFirst => heads.max_by_key(|part| key(part)),
        };
        Ok(first.and_then(|part| part.read.pop_front()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;
    use time::macros::datetime;
    use time::{Duration, OffsetDateTime};

    use super::super::stored;
    use super::*;
    use crate::env::lock;
    use crate::ports::{ErrorClass, Fault};
    use crate::rules::Severity;

    /// A table in memory: events by day and part, in pages of some length.
    #[derive(Default)]
    struct Table {
        events: Vec<(Date, u8, Stored)>,
        page: usize,
        /// The call that fails, counted from 1.
        fails: Option<usize>,
        calls: AtomicUsize,
        most_held: Mutex<usize>,
    }

    impl Table {
        fn call(&self) -> Result<(), PortError> {
            let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
            if self.fails == Some(call) {
                return Err(PortError {
                    class: ErrorClass::Config,
                    fault: Fault::Missing,
                    operation: "dynamodb:Query",
                    detail: "it fails".to_owned(),
                    source: None,
                });
            }
            Ok(())
        }

        fn cut(&self, mut items: Vec<Stored>, after: Option<&EventKey>) -> Page {
            if let Some(after) = after {
                let at = items.iter().position(|item| item.key == *after).unwrap();
                items.drain(..=at);
            }
            let next = (items.len() >= self.page).then(|| items[self.page - 1].key.clone());
            items.truncate(self.page);
            *lock(&self.most_held) += items.len();
            Page { items, next }
        }
    }

    #[async_trait]
    impl EventReader for Table {
        fn parts(&self) -> u8 {
            8
        }

        async fn page(&self, request: &PageRequest<'_>) -> Result<Page, PortError> {
            self.call()?;
            let (first, last) = request.range.bounds();
            let of_part = self.events.iter().filter(|(day, part, _)| (*day, *part) == (request.day, request.part));
            let mut items: Vec<_> = of_part.map(|(_, _, event)| event.clone()).collect();
            items.retain(|item| (first.as_str()..=last.as_str()).contains(&item.key.timestamp.as_str()));
            items.sort_by(|a, b| a.key.timestamp.cmp(&b.key.timestamp));
            if request.order == Order::NewestFirst {
                items.reverse();
            }
            // An index without attributes.
            let keys = items.into_iter().map(|item| Stored::new(item.key)).collect();
            Ok(self.cut(keys, request.after))
        }

        async fn scan(&self, _: &Range, _: Detail, after: Option<&EventKey>) -> Result<Page, PortError> {
            self.call()?;
            Ok(self.cut(self.events.iter().map(|(_, _, event)| event.clone()).collect(), after))
        }

        async fn get(&self, key: &EventKey, _: Detail) -> Result<Option<Stored>, PortError> {
            // One that expired since the index was read.
            let found = self.events.iter().find(|(_, _, event)| event.key == *key && event.key.event_id != "expired");
            Ok(found.map(|(_, _, event)| event.clone()))
        }

        async fn of_id(&self, _: &str) -> Result<Vec<Stored>, PortError> {
            Ok(Vec::new())
        }
    }

    const FROM: OffsetDateTime = datetime!(2026-04-30 20:00 UTC);

    /// Events at these half seconds after [`FROM`].
    fn table(at: &[u32], page: usize) -> Table {
        let event = |(number, half): (usize, &u32)| {
            let time = FROM + Duration::milliseconds(i64::from(*half) * 500);
            let text = time.format(&time::format_description::well_known::Rfc3339).unwrap();
            (time.date(), u8::try_from(number % 8).unwrap(), stored(&format!("e-{number}"), &text))
        };
        Table { events: at.iter().enumerate().map(event).collect(), page, ..Table::default() }
    }

    async fn ids(question: Question<'_>, table: &Table) -> Vec<String> {
        let events: Vec<_> = question.by_index(table).try_collect().await.unwrap();
        events.into_iter().map(|event| event.key.event_id).collect()
    }

    fn question(range: Range, filter: &Filter, order: Order) -> Question<'_> {
        Question { range, filter, order, detail: Detail::Attributes }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_event_of_a_range_is_read_once_and_in_order(
            at in prop::collection::vec(0_u32..1_000_000, 0..60),
            (from, length) in (0_u32..1_000_000, 1_u32..600_000),
            page in 1_usize..5,
        ) {
            let table = table(&at, page);
            let half = |half: u32| FROM + Duration::milliseconds(i64::from(half) * 500);
            let range = Range::new(half(from), half(from + length));
            let mut expected: Vec<_> = table.events.iter().map(|(_, _, event)| event).filter(|event| range.holds(event)).collect();
            expected.sort_by(|a, b| (&a.key.timestamp, &a.key.event_id).cmp(&(&b.key.timestamp, &b.key.event_id)));
            let expected: Vec<_> = expected.into_iter().map(|event| event.key.event_id.clone()).collect();
            let filter = Filter::default();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let oldest = runtime.block_on(ids(question(range, &filter, Order::OldestFirst), &table));
            prop_assert_eq!(&oldest, &expected);
            let mut newest = runtime.block_on(ids(question(range, &filter, Order::NewestFirst), &table));
            newest.reverse();
            // Those of one time may stand in either order.
            newest.sort_by_key(|id| expected.iter().position(|one| one == id));
            prop_assert_eq!(&newest, &expected);
            let question = question(range, &filter, Order::OldestFirst);
            let scanned = runtime.block_on(question.by_sorted_scan(&table, None)).unwrap();
            prop_assert_eq!(scanned.into_iter().map(|event| event.key.event_id).collect::<Vec<_>>(), expected);
        }
    }

    #[tokio::test]
    async fn reading_is_as_lazy_as_its_reader() {
        let table = table(&(0..4_000).map(|second| second * 2).collect::<Vec<_>>(), 10);
        let filter = Filter::default();
        let range = Range::new(FROM, FROM + Duration::days(1));
        let mut events = question(range, &filter, Order::OldestFirst).by_index(&table);
        for number in 0..5 {
            assert_eq!(events.try_next().await.unwrap().unwrap().key.event_id, format!("e-{number}"));
        }
        // A page of each part, and what is read ahead.
        let read = *lock(&table.most_held);
        assert!(read <= 8 * 10 * 2, "{read} of 4000 are held for the first five");
    }

    #[tokio::test]
    async fn an_item_that_is_gone_is_left_out_and_an_error_is_the_end() {
        let filter = Filter::default();
        let range = Range::new(FROM, FROM + Duration::days(3));
        let mut two = table(&[1, 2], 5);
        two.events[0].2.key.event_id = "expired".to_owned();
        assert_eq!(ids(question(range, &filter, Order::OldestFirst), &two).await, ["e-1"]);

        for call in 1..=32 {
            let table = Table { fails: Some(call), ..table(&[1, 200_000, 400_000], 5) };
            let read = question(range, &filter, Order::NewestFirst).by_index(&table);
            let ended: Result<Vec<_>, _> = read.try_collect().await;
            assert!(ended.unwrap_err().to_string().contains("it fails"), "call {call}");
        }
    }

    #[tokio::test]
    async fn a_scan_keeps_the_first_events_only() {
        let table = table(&(0..300).rev().map(|second| second * 2).collect::<Vec<_>>(), 7);
        let filter = Filter { severity: Some(Severity::High), ..Filter::default() };
        for (order, expected) in [(Order::OldestFirst, ["e-299", "e-298"]), (Order::NewestFirst, ["e-0", "e-1"])] {
            let found = question(Range::ALL, &filter, order).by_sorted_scan(&table, Some(2)).await.unwrap();
            assert_eq!(found.iter().map(|event| event.key.event_id.as_str()).collect::<Vec<_>>(), expected);
        }
        let none = Filter { severity: Some(Severity::Critical), ..Filter::default() };
        assert!(question(Range::ALL, &none, Order::OldestFirst).by_sorted_scan(&table, None).await.unwrap().is_empty());
    }
}
