//! Which log objects a bucket holds. CloudTrail lays them out by account, region and day, so that a part of them is found
//! without walking the bucket
//! ([log file location](https://docs.aws.amazon.com/awscloudtrail/latest/userguide/get-and-view-cloudtrail-log-files.html)):
//! `<prefix>/AWSLogs/[<organisation>/]<account>/CloudTrail/<region>/<YYYY>/<MM>/<DD>/<file>`.

use std::collections::VecDeque;
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;

use async_trait::async_trait;
use time::{Date, Month};
use tokio::sync::mpsc;

use crate::notification::classify;
use crate::ports::PortError;

/// How deep folders above `AWSLogs/` are looked for.
const MAX_ABOVE: usize = 4;

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys.
    pub objects: Vec<Listed>,
    /// Prefixes that end in `/`.
    pub folders: Vec<String>,
    /// What to go on with; `None` at the end.
    pub next: Option<String>,
}

/// An object, as a listing names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: String,
    /// In bytes.
    pub size: u64,
}

/// Lists what is in a bucket.
#[async_trait]
pub trait ObjectLister: Send + Sync + 'static {
    /// The objects whose keys begin with `prefix`; with `folders`, those in this very folder and the folders in it. `after`
    /// is the last page's [`Page::next`].
    async fn page(&self, bucket: &str, prefix: &str, folders: bool, after: Option<&str>) -> Result<Page, PortError>;
}

/// `s3://bucket/prefix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub bucket: String,
    /// May be empty.
    pub prefix: String,
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not of the form s3://bucket/prefix");
        let rest = text.strip_prefix("s3://").ok_or_else(wrong)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(wrong());
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

/// Which logs are wanted. Empty lists and `None` ask for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub accounts: Vec<String>,
    pub regions: Vec<String>,
    /// Days of delivery, both included.
    pub from: Option<Date>,
    pub to: Option<Date>,
}

impl Selection {
    fn is_all(&self) -> bool {
        *self == Self::default()
    }

    fn has_day(&self, day: Date) -> bool {
        self.from.is_none_or(|from| from <= day) && self.to.is_none_or(|to| day <= to)
    }
}

/// Why a listing ended early.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(
        "no AWSLogs/ folder is below {0}, or nothing is in it: give the whole name of a folder, best that above AWSLogs/"
    )]
    NoLogs(Location),
}

/// Gives every wanted log object, in the order of the folders and of the keys in them, until `each` breaks. Digests and other
/// things are passed over.
///
/// # Errors
///
/// The first call that failed, or that there is no `AWSLogs/` where a part was asked for.
pub async fn logs(
    lister: &dyn ObjectLister,
    location: &Location,
    selection: &Selection,
    each: &mut (dyn AsyncEach + '_),
) -> Result<(), ListError> {
    let Location { bucket, prefix } = location;
    if selection.is_all() {
        let _all = objects(lister, bucket, prefix, each).await?;
        return Ok(());
    }
    let (parent, name) = prefix.rsplit_once('/').unwrap_or(("", prefix));
    if !name.is_empty() && matches!(place(parent), Place::Logs((.., Some(_)))) {
        // An object, or the beginning of some objects' names: no folders are in it.
        if is_chosen(parent, selection) && objects(lister, bucket, prefix, each).await?.count == 0 {
            return Err(ListError::NoLogs(location.clone()));
        }
        return Ok(());
    }
    let top = if prefix.is_empty() || prefix.ends_with('/') { prefix.clone() } else { format!("{prefix}/") };
    if !is_chosen(&top, selection) {
        return Ok(());
    }
    let mut folders = VecDeque::from([(top, 0)]);
    let mut found = false;
    while let Some((folder, above)) = folders.pop_front() {
        let place = place(&folder);
        if let Place::Logs(date) = place
            && is_narrowed(date, selection)
        {
            let given = objects(lister, bucket, &folder, each).await?;
            if given.is_enough {
                return Ok(());
            }
            found |= above > 0 || given.count > 0;
            continue;
        }
        if place == Place::Above && above >= MAX_ABOVE {
            continue;
        }
        let below = subfolders(lister, bucket, &folder).await?;
        // The folder that was named may not be there.
        found |= place != Place::Above && (above > 0 || !below.is_empty());
        let logs = format!("{folder}AWSLogs/");
        // Where there is one, nothing else is of interest.
        let below = if place == Place::Above && below.contains(&logs) { vec![logs] } else { below };
        let wanted = below.into_iter().filter(|below| is_wanted(place, &folder, below, selection));
        // In the order of the keys, as far as folders go.
        for below in wanted.collect::<Vec<_>>().into_iter().rev() {
            folders.push_front((below, above + 1));
        }
    }
    if found { Ok(()) } else { Err(ListError::NoLogs(location.clone())) }
}

/// What is called with every object; breaks when it wants no more.
#[async_trait]
pub trait AsyncEach: Send {
    async fn object(&mut self, object: Listed) -> ControlFlow<()>;
}

/// Sends what is listed to somebody else, and counts it.
pub struct Sending {
    sender: mpsc::Sender<Listed>,
    pub count: u64,
}

impl Sending {
    #[must_use]
    pub fn new(sender: mpsc::Sender<Listed>) -> Self {
        Self { sender, count: 0 }
    }
}

#[async_trait]
impl AsyncEach for Sending {
    async fn object(&mut self, object: Listed) -> ControlFlow<()> {
        self.count += 1;
        if self.sender.send(object).await.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// Where a folder is in CloudTrail's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Not below `AWSLogs/`.
    Above,
    /// `AWSLogs/`, or that of an organisation: accounts are in it.
    Accounts,
    /// An account: `CloudTrail/` is in it.
    Account,
    /// `CloudTrail/`: regions are in it.
    Regions,
    /// Below a region, with as much of a date as the path has.
    Logs(Partial),
    /// Something else of AWS's.
    Other,
}

/// A year, a month, a day, as far as known.
type Partial = (Option<i32>, Option<u8>, Option<u8>);

fn place(folder: &str) -> Place {
    let mut names = folder.trim_end_matches('/').split('/');
    if !names.by_ref().any(|name| name == "AWSLogs") {
        return Place::Above;
    }
    let names: Vec<&str> = names.collect();
    let names = match names.as_slice() {
        [organisation, rest @ ..] if organisation.starts_with("o-") => rest,
        all => all,
    };
    match names {
        [] => Place::Accounts,
        [_] => Place::Account,
        [_, log] if is_log_folder(log) => Place::Regions,
        [_, log, _, date @ ..] if is_log_folder(log) && date.len() <= 3 => {
            let part = |index: usize| date.get(index).map(|text| text.parse::<u16>().ok());
            match (part(0), part(1), part(2)) {
                (Some(None), ..) | (_, Some(None), _) | (.., Some(None)) => Place::Other,
                (year, month, day) => {
                    let small = |part: Option<Option<u16>>| part.flatten().and_then(|part| u8::try_from(part).ok());
                    Place::Logs((year.flatten().map(i32::from), small(month), small(day)))
                }
            }
        }
        _ => Place::Other,
    }
}

/// Whether what the path of a folder says already, its account, its region and its date, is wanted.
fn is_chosen(folder: &str, selection: &Selection) -> bool {
    let mut names = folder.trim_end_matches('/').split('/').skip_while(|name| *name != "AWSLogs").skip(1).peekable();
    names.next_if(|name| name.starts_with("o-"));
    let among = |wanted: &[String], name: Option<&str>| {
        wanted.is_empty() || name.is_none_or(|name| wanted.iter().any(|wanted| wanted == name))
    };
    let date = match place(folder) {
        Place::Logs(date) => date,
        _ => (None, None, None),
    };
    // What is no date is the beginning of one: whoever lists it finds nothing, and tells.
    let in_time = overlaps(date, selection) || !overlaps(date, &Selection::default());
    among(&selection.accounts, names.next()) && among(&selection.regions, names.nth(1)) && in_time
}

fn is_log_folder(name: &str) -> bool {
    matches!(name, "CloudTrail" | "CloudTrail-Insight")
}

/// Whether all below a part of a date is wanted, or it is a day: then it is listed whole.
fn is_narrowed(date: Partial, selection: &Selection) -> bool {
    matches!(date, (.., Some(_))) || selection.from.is_none() && selection.to.is_none()
}

fn is_wanted(place: Place, folder: &str, below: &str, selection: &Selection) -> bool {
    let name = below.strip_prefix(folder).unwrap_or(below).trim_end_matches('/');
    let among = |wanted: &[String]| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    match place {
        Place::Above => true,
        Place::Accounts => name.starts_with("o-") || among(&selection.accounts),
        Place::Account => is_log_folder(name),
        Place::Regions => among(&selection.regions),
        Place::Logs((year, month, _)) => {
            let Ok(number) = name.parse::<u16>() else { return false };
            let date = match (year, month) {
                (None, _) => (Some(i32::from(number)), None, None),
                (year, None) => (year, u8::try_from(number).ok(), None),
                (year, month) => (year, month, u8::try_from(number).ok()),
            };
            overlaps(date, selection)
        }
        Place::Other => false,
    }
}

/// Whether any day of a year, of a month, or a day is wanted.
fn overlaps((year, month, day): Partial, selection: &Selection) -> bool {
    let Some(year) = year else { return true };
    let month_of = |number: u8| Month::try_from(number).ok();
    let bounds = match (month, day) {
        (None, _) => {
            (Date::from_calendar_date(year, Month::January, 1), Date::from_calendar_date(year, Month::December, 31))
        }
        (Some(number), None) => {
            let Some(month) = month_of(number) else { return false };
            (Date::from_calendar_date(year, month, 1), Date::from_calendar_date(year, month, month.length(year)))
        }
        (Some(number), Some(day)) => {
            let Some(month) = month_of(number) else { return false };
            return Date::from_calendar_date(year, month, day).is_ok_and(|day| selection.has_day(day));
        }
    };
    let (Ok(first), Ok(last)) = bounds else { return false };
    selection.from.is_none_or(|from| from <= last) && selection.to.is_none_or(|to| first <= to)
}

/// How many objects were given, and whether no more are wanted.
struct Given {
    count: u64,
    is_enough: bool,
}

async fn objects(
    lister: &dyn ObjectLister,
    bucket: &str,
    prefix: &str,
    each: &mut (dyn AsyncEach + '_),
) -> Result<Given, PortError> {
    let (mut after, mut count) = (None, 0);
    loop {
        let page = lister.page(bucket, prefix, false, after.as_deref()).await?;
        for object in page.objects.into_iter().filter(|object| classify(&object.key).is_ok()) {
            count += 1;
            if each.object(object).await.is_break() {
                return Ok(Given { count, is_enough: true });
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(Given { count, is_enough: false });
        }
    }
}

async fn subfolders(lister: &dyn ObjectLister, bucket: &str, folder: &str) -> Result<Vec<String>, PortError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = lister.page(bucket, folder, true, after.as_deref()).await?;
        all.extend(page.folders);
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use time::macros::date;

    use super::*;

    /// A bucket, in pages of three, that notes what was asked.
    struct Bucket {
        keys: BTreeSet<String>,
        asked: Mutex<Vec<String>>,
    }

    impl Bucket {
        fn new(keys: impl IntoIterator<Item = String>) -> Self {
            Self { keys: keys.into_iter().collect(), asked: Mutex::default() }
        }
    }

    #[async_trait]
    impl ObjectLister for Bucket {
        async fn page(&self, _: &str, prefix: &str, folders: bool, after: Option<&str>) -> Result<Page, PortError> {
            self.asked.lock().unwrap().push(prefix.to_owned());
            let mut all = BTreeSet::new();
            for key in self.keys.iter().filter(|key| key.starts_with(prefix)) {
                match key.strip_prefix(prefix).unwrap().split_once('/').filter(|_| folders) {
                    Some((folder, _)) => all.insert((format!("{prefix}{folder}/"), true)),
                    None => all.insert((key.clone(), false)),
                };
            }
            let start = after.map_or(0, |after| after.parse().unwrap());
            let page: Vec<_> = all.iter().skip(start).take(3).cloned().collect();
            let next = (start + 3 < all.len()).then(|| (start + 3).to_string());
            let of = |folder: bool| page.iter().filter(move |it| it.1 == folder).map(|it| it.0.clone());
            let objects = of(false).map(|key| Listed { key, size: 7 }).collect();
            Ok(Page { objects, folders: of(true).collect(), next })
        }
    }

    struct Keys(Vec<String>);

    #[async_trait]
    impl AsyncEach for Keys {
        async fn object(&mut self, object: Listed) -> ControlFlow<()> {
            self.0.push(object.key);
            ControlFlow::Continue(())
        }
    }

    fn key(top: &str, account: &str, region: &str, day: &str, number: u32) -> String {
        let date = day.replace('/', "");
        format!(
            "{top}AWSLogs/{account}/CloudTrail/{region}/{day}/{account}_CloudTrail_{region}_{date}T1205Z_{number:016}.json.gz"
        )
    }

    fn bucket() -> Bucket {
        let mut keys = Vec::new();
        for top in ["", "org/audit/"] {
            for account in ["111122223333", "444455556666"] {
                for region in ["eu-west-1", "us-east-1"] {
                    for day in ["2025/12/31", "2026/05/01", "2026/05/02", "2026/06/01"] {
                        keys.extend((0..4).map(|number| key(top, account, region, day, number)));
                    }
                }
                keys.push(format!("{top}AWSLogs/{account}/CloudTrail-Digest/eu-west-1/2026/05/01/{account}_CloudTrail-Digest_eu-west-1_trail_20260501T1205Z.json.gz"));
                keys.push(format!("{top}AWSLogs/{account}/Config/eu-west-1/2026/5/1/x.json.gz"));
            }
        }
        keys.push("org/audit/readme.txt".to_owned());
        Bucket::new(keys)
    }

    async fn found(bucket: &Bucket, location: &str, selection: Selection) -> Result<Vec<String>, ListError> {
        let mut keys = Keys(Vec::new());
        logs(bucket, &location.parse().unwrap(), &selection, &mut keys).await?;
        Ok(keys.0)
    }

    #[tokio::test]
    async fn a_part_is_found_without_walking_the_bucket() {
        let bucket = bucket();
        let selection = Selection {
            accounts: vec!["444455556666".to_owned()],
            regions: vec!["us-east-1".to_owned()],
            from: Some(date!(2026 - 05 - 02)),
            to: Some(date!(2026 - 05 - 31)),
        };
        let wanted: Vec<_> =
            (0..4).map(|number| key("org/audit/", "444455556666", "us-east-1", "2026/05/02", number)).collect();
        for location in ["s3://b/org/audit", "s3://b/org/audit/", "s3://b/org/audit/AWSLogs/444455556666"] {
            assert_eq!(found(&bucket, location, selection.clone()).await.unwrap(), wanted, "{location}");
        }
        let asked = bucket.asked.lock().unwrap();
        assert!(!asked.iter().any(|prefix| prefix.contains("111122223333") || prefix.contains("2025")), "{asked:?}");
    }

    #[tokio::test]
    async fn everything_is_found_in_order_and_digests_are_not() {
        let bucket = bucket();
        let all = found(&bucket, "s3://b", Selection::default()).await.unwrap();
        assert_eq!(all.len(), 2 * 2 * 2 * 4 * 4);
        assert!(all.is_sorted() && !all.iter().any(|key| key.contains("Digest") || key.contains("Config")));
        let since = Selection { from: Some(date!(2026 - 05 - 02)), ..Selection::default() };
        let later = found(&bucket, "s3://b/AWSLogs/", since).await.unwrap();
        assert_eq!(later.len(), 2 * 2 * 2 * 4);
        assert!(later.iter().all(|key| key.contains("/2026/05/02/") || key.contains("/2026/06/01/")));
    }

    #[tokio::test]
    async fn an_organisation_and_one_day_are_found() {
        let day = key("", "111122223333", "eu-west-1", "2026/05/01", 1).replace("AWSLogs/", "AWSLogs/o-abcdefghij/");
        let bucket = Bucket::new([day.clone()]);
        let one = std::slice::from_ref(&day);
        let selection = Selection { accounts: vec!["111122223333".to_owned()], ..Selection::default() };
        assert_eq!(found(&bucket, "s3://b", selection.clone()).await.unwrap(), one);
        let folder = format!("s3://b/{}", day.rsplit_once('/').unwrap().0);
        assert_eq!(found(&bucket, &folder, selection).await.unwrap(), one);
    }

    #[tokio::test]
    async fn a_place_without_logs_is_told() {
        let selection = Selection { regions: vec!["eu-west-1".to_owned()], ..Selection::default() };
        let error = found(&bucket(), "s3://b/nowhere", selection).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "no AWSLogs/ folder is below s3://b/nowhere, or nothing is in it: give the whole name of a folder, best that above AWSLogs/"
        );
    }

    #[tokio::test]
    async fn one_object_is_found_and_a_name_that_is_cut_off_is_told() {
        let bucket = bucket();
        let selection = Selection { from: Some(date!(2026 - 05 - 01)), ..Selection::default() };
        let one = key("", "111122223333", "eu-west-1", "2026/05/02", 2);
        assert_eq!(found(&bucket, &format!("s3://b/{one}"), selection.clone()).await.unwrap(), [one]);
        for cut in ["1111", "111122223333/CloudTrail/eu-w", "111122223333/CloudTrail/eu-west-1/2026/0"] {
            let error = found(&bucket, &format!("s3://b/AWSLogs/{cut}"), selection.clone()).await.unwrap_err();
            assert!(error.to_string().contains("or nothing is in it"), "{cut}: {error}");
        }
    }

    #[tokio::test]
    async fn what_is_asked_for_holds_for_the_folder_that_is_named() {
        let bucket = bucket();
        let account = Selection { accounts: vec!["444455556666".to_owned()], ..Selection::default() };
        let region = Selection { regions: vec!["us-east-1".to_owned()], ..Selection::default() };
        let day = Selection { from: Some(date!(2026 - 05 - 02)), ..Selection::default() };
        let folder = "s3://b/AWSLogs/111122223333/CloudTrail/eu-west-1/2026/05/01/";
        for (location, selection) in [
            ("s3://b/org/audit/AWSLogs/111122223333", &account),
            (folder, &account),
            ("s3://b/AWSLogs/111122223333/CloudTrail/eu-west-1", &region),
            (folder, &region),
            (folder, &day),
            (&format!("s3://b/{}", key("", "111122223333", "eu-west-1", "2026/05/01", 2)), &day),
        ] {
            assert_eq!(found(&bucket, location, selection.clone()).await.unwrap(), Vec::<String>::new(), "{location}");
        }
    }

    #[test]
    fn a_location_names_a_bucket() {
        assert_eq!("s3://b/a/c".parse::<Location>().unwrap().to_string(), "s3://b/a/c");
        assert_eq!("s3://b".parse::<Location>().unwrap().prefix, "");
        for wrong in ["b/a", "s3://", "s3:///a"] {
            assert!(wrong.parse::<Location>().unwrap_err().contains("s3://bucket/prefix"), "{wrong}");
        }
    }
}
