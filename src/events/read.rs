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
    day: Date,
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
    fn new(reader: &'a dyn EventReader, question: Question<'a>, day: Date) -> Self {
        let part = |number| Part { number, read: VecDeque::new(), next: Next::First };
        Self { reader, question, day, parts: (0..reader.parts()).map(part).collect() }
    }

    /// Reads on in every partition of which nothing is left, until each has something or has ended.
    async fn fill(&mut self) -> Result<(), PortError> {
        let Self { reader, question, day, parts } = self;
        let (reader, question, day) = (*reader, &*question, *day);
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
