//! What a pattern means, said a second time: as EventBridge's engine defines it, without any care for speed, on values
//! that were never bytes. Generators of patterns and records stand here, too; letters are few, so that matches are
//! frequent.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

/// A JSON value with its spelling: duplicate keys, and how strings and numbers are written.
#[derive(Clone, Debug)]
pub(in crate::rules) enum Json {
    Leaf(Leaf),
    Array(Vec<Json>),
    Object(Vec<(Text, Json)>),
}

#[derive(Clone, Debug)]
pub(in crate::rules) enum Leaf {
    Null,
    Bool(bool),
    Number(&'static str),
    Text(Text),
    /// A text that holds JSON, plain or URL-encoded.
    Document(Box<Json>, bool),
}

/// A string, and whether its characters are written as escapes.
#[derive(Clone, Debug)]
pub(in crate::rules) struct Text {
    text: String,
    escaped: bool,
}

impl Text {
    fn written(&self) -> String {
        if self.escaped {
            let units = self.text.encode_utf16().fold(String::new(), |all, unit| all + &format!("\\u{unit:04x}"));
            format!("\"{units}\"")
        } else {
            serde_json::to_string(&self.text).unwrap()
        }
    }
}

pub(in crate::rules) fn plain(text: &str) -> Text {
    Text { text: text.to_owned(), escaped: false }
}

impl Json {
    pub(in crate::rules) fn written(&self) -> String {
        match self {
            Self::Leaf(leaf) => leaf.written(),
            Self::Array(all) => format!("[{}]", all.iter().map(Self::written).collect::<Vec<_>>().join(" ,")),
            Self::Object(all) => {
                let member = |(key, value): &(Text, Self)| format!("{} :{}", key.written(), value.written());
                format!("{{ {}}}", all.iter().map(member).collect::<Vec<_>>().join(",\n"))
            }
        }
    }

    /// The member that counts.
    pub(in crate::rules) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(all) => all.iter().rev().find(|(key, _)| key.text == name).map(|(_, value)| value),
            _ => None,
        }
    }

    pub(in crate::rules) fn text(&self) -> Option<String> {
        match self {
            Self::Leaf(leaf) => leaf.text(),
            _ => None,
        }
    }
}

impl Leaf {
    fn written(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) => (*number).to_owned(),
            Self::Text(text) => text.written(),
            Self::Document(..) => plain(&self.text().unwrap()).written(),
        }
    }

    fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.text.clone()),
            Self::Document(json, false) => Some(json.written()),
            Self::Document(json, true) => Some(
                percent_encoding::utf8_percent_encode(&json.written(), percent_encoding::NON_ALPHANUMERIC).to_string(),
            ),
            _ => None,
        }
    }
}

/// An object of a pattern, in the order in which it is written.
pub(in crate::rules) type Pattern = Vec<Entry>;

#[derive(Clone, Debug)]
pub(in crate::rules) enum Entry {
    Below(&'static str, Pattern),
    Values(&'static str, Vec<Condition>),
    Or(Vec<Pattern>),
}

#[derive(Clone, Debug)]
pub(in crate::rules) enum Condition {
    Absent,
    Exists,
    Text(&'static str),
    Number(&'static str),
    Bool(bool),
    Null,
    Exactly(&'static str),
    Prefix(&'static str),
    Suffix(&'static str),
    PrefixAnyCase(&'static str),
    SuffixAnyCase(&'static str),
    EqualAnyCase(&'static str),
    Wildcard(&'static str),
    /// As it is written, and the bounds.
    Numeric(&'static str, fn(f64) -> bool),
    Cidr(&'static str, u32),
    Regex(&'static str, fn(&str) -> bool),
    Field(&'static str),
    List(&'static str),
    Json(Pattern),
    AnythingBut(Box<Unwanted>),
}

#[derive(Clone, Debug)]
pub(in crate::rules) enum Unwanted {
    Texts(Vec<&'static str>),
    Numbers(Vec<&'static str>),
    Like(Condition),
    /// Conditions of one kind.
    AnyLike(Vec<Condition>),
}

/// The lists that patterns name.
pub(crate) const LISTS: &str = r#"{"few": ["a", 1, {"prefix": "b"}], "net": [{"cidr": "10.0.0.0/24"}, "::1"]}"#;

fn listed(name: &str) -> Vec<Condition> {
    match name {
        "few" => vec![Condition::Text("a"), Condition::Number("1"), Condition::Prefix("b")],
        _ => vec![Condition::Cidr("10.0.0.0", 24), Condition::Text("::1")],
    }
}

pub(in crate::rules) fn written(pattern: &[Entry]) -> String {
    let entry = |entry: &Entry| match entry {
        Entry::Below(name, below) => format!("{name:?}: {}", written(below)),
        Entry::Values(name, all) => format!("{name:?}: {}", list(all.iter().map(Condition::written))),
        Entry::Or(branches) => format!("\"$or\": {}", list(branches.iter().map(|branch| written(branch)))),
    };
    format!("{{{}}}", pattern.iter().map(entry).collect::<Vec<_>>().join(", "))
}

fn list(all: impl Iterator<Item = String>) -> String {
    format!("[{}]", all.collect::<Vec<_>>().join(", "))
}

impl Condition {
    fn written(&self) -> String {
        let text = |text: &str| serde_json::to_string(text).unwrap();
        let named = |(name, value): (&str, String)| format!("{{{name:?}: {value}}}");
        match self {
            Self::Text(wanted) => text(wanted),
            Self::Number(wanted) => (*wanted).to_owned(),
            Self::Bool(wanted) => wanted.to_string(),
            Self::Null => "null".to_owned(),
            _ => named(self.named().unwrap()),
        }
    }

    fn named(&self) -> Option<(&'static str, String)> {
        let text = |text: &str| serde_json::to_string(text).unwrap();
        Some(match self {
            Self::Absent => ("exists", "false".to_owned()),
            Self::Exists => ("exists", "true".to_owned()),
            Self::Exactly(wanted) => ("exactly", text(wanted)),
            Self::Prefix(part) => ("prefix", text(part)),
            Self::Suffix(part) => ("suffix", text(part)),
            Self::PrefixAnyCase(part) => ("prefix", format!("{{\"equals-ignore-case\": {}}}", text(part))),
            Self::SuffixAnyCase(part) => ("suffix", format!("{{\"equals-ignore-case\": {}}}", text(part))),
            Self::EqualAnyCase(wanted) => ("equals-ignore-case", text(wanted)),
            Self::Wildcard(wanted) => ("wildcard", text(wanted)),
            Self::Numeric(written, _) => ("numeric", (*written).to_owned()),
            Self::Cidr(base, bits) => ("cidr", text(&format!("{base}/{bits}"))),
            Self::Regex(written, _) => ("regex", text(written)),
            Self::Field(path) => ("field", text(path)),
            Self::List(name) => ("list", text(name)),
            Self::Json(pattern) => ("json", written(pattern)),
            Self::AnythingBut(unwanted) => ("anything-but", unwanted.written()),
            Self::Text(_) | Self::Number(_) | Self::Bool(_) | Self::Null => return None,
        })
    }

    /// `fields` are those of the whole record.
    fn holds(&self, leaf: &Leaf, fields: &[Field]) -> bool {
        let text = leaf.text();
        let text_is = |holds: &dyn Fn(&str) -> bool| text.as_deref().is_some_and(holds);
        match self {
            Self::Absent => false,
            Self::Exists => true,
            Self::Text(wanted) => text_is(&|text| {
                let address = |text: &str| text.parse::<IpAddr>().ok();
                text == *wanted || address(text).is_some() && address(text) == address(wanted)
            }),
            Self::Exactly(wanted) => text_is(&|text| text == *wanted),
            Self::Number(wanted) => number(leaf) == Some(wanted.parse().unwrap()),
            Self::Bool(wanted) => matches!(leaf, Leaf::Bool(value) if value == wanted),
            Self::Null => matches!(leaf, Leaf::Null),
            Self::Prefix(part) => text_is(&|text| text.starts_with(part)),
            Self::Suffix(part) => text_is(&|text| text.ends_with(part)),
            Self::PrefixAnyCase(part) => text_is(&|text| text.to_lowercase().starts_with(&part.to_lowercase())),
            Self::SuffixAnyCase(part) => text_is(&|text| text.to_lowercase().ends_with(&part.to_lowercase())),
            Self::EqualAnyCase(wanted) => text_is(&|text| text.to_lowercase() == wanted.to_lowercase()),
            Self::Wildcard(wanted) => {
                text_is(&|text| wildcard(&wanted.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>()))
            }
            Self::Numeric(_, holds) => number(leaf).is_some_and(holds),
            Self::Cidr(base, bits) => text_is(&|text| {
                let (Ok(base), Ok(found)) = (base.parse::<IpAddr>(), text.parse::<IpAddr>()) else { return false };
                match (base, found) {
                    (IpAddr::V4(base), IpAddr::V4(found)) => {
                        base <= found && base.to_bits() >> (32 - bits) == found.to_bits() >> (32 - bits)
                    }
                    (IpAddr::V6(base), IpAddr::V6(found)) => {
                        base <= found && base.to_bits() >> (128 - bits) == found.to_bits() >> (128 - bits)
                    }
                    _ => false,
                }
            }),
            Self::Regex(_, holds) => text_is(holds),
            Self::Field(path) => fields.iter().filter(|field| field.path == *path).any(|field| {
                text.is_some() && text == field.leaf.text()
                    || number(leaf).is_some() && number(leaf) == number(&field.leaf)
                    || matches!((leaf, &field.leaf), (Leaf::Bool(one), Leaf::Bool(other)) if one == other)
            }),
            Self::List(name) => listed(name).iter().any(|one| one.holds(leaf, fields)),
            Self::Json(pattern) => {
                matches!(leaf, Leaf::Document(document, _) if matches_in(pattern, &flat(document), fields))
            }
            Self::AnythingBut(unwanted) => match &**unwanted {
                Unwanted::Texts(all) => !all.iter().any(|one| Self::Exactly(one).holds(leaf, fields)),
                Unwanted::Numbers(all) => !all.iter().any(|one| Self::Number(one).holds(leaf, fields)),
                Unwanted::Like(one) => !one.holds(leaf, fields),
                Unwanted::AnyLike(all) => !all.iter().any(|one| one.holds(leaf, fields)),
            },
        }
    }
}

impl Unwanted {
    fn written(&self) -> String {
        match self {
            Self::Texts(all) => list(all.iter().map(|one| Condition::Text(one).written())),
            Self::Numbers(all) => list(all.iter().map(|one| (*one).to_owned())),
            Self::Like(one) => one.written(),
            Self::AnyLike(all) => {
                let named: Vec<_> = all.iter().map(|one| one.named().unwrap()).collect();
                format!("{{{:?}: {}}}", named[0].0, list(named.iter().map(|(_, value)| value.clone())))
            }
        }
    }
}

fn number(leaf: &Leaf) -> Option<f64> {
    match leaf {
        Leaf::Number(written) => Some(written.parse().unwrap()),
        _ => None,
    }
}

fn wildcard(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|skipped| wildcard(rest, &text[skipped..])),
        ['\\', literal, rest @ ..] | [literal, rest @ ..] => {
            text.split_first().is_some_and(|(found, after)| found == literal && wildcard(rest, after))
        }
    }
}

/// A leaf, where it stands, and in which element of which arrays.
struct Field {
    path: String,
    leaf: Leaf,
    within: BTreeMap<usize, usize>,
}

fn flat(json: &Json) -> Vec<Field> {
    let mut fields = Vec::new();
    flatten(json, "", &BTreeMap::new(), &mut 0, &mut fields);
    fields
}

/// A plain value right within an array is bound to no element of it.
fn flatten(json: &Json, path: &str, within: &BTreeMap<usize, usize>, arrays: &mut usize, fields: &mut Vec<Field>) {
    match json {
        Json::Leaf(leaf) => {
            fields.push(Field { path: path.to_owned(), leaf: leaf.clone(), within: within.clone() });
        }
        Json::Object(all) => {
            for (index, (key, value)) in all.iter().enumerate() {
                if all.iter().skip(index + 1).any(|(later, _)| later.text == key.text) {
                    continue;
                }
                let below = if path.is_empty() { key.text.clone() } else { format!("{path}.{}", key.text) };
                flatten(value, &below, within, arrays, fields);
            }
        }
        Json::Array(all) => {
            *arrays += 1;
            let array = *arrays;
            for (index, element) in all.iter().enumerate() {
                let mut bound = within.clone();
                if !matches!(element, Json::Leaf(_)) {
                    bound.insert(array, index);
                }
                flatten(element, path, &bound, arrays, fields);
            }
        }
    }
}

/// What one way of meeting a pattern asks of a path: `None` for its absence.
type Way<'p> = Vec<(String, Option<Vec<&'p Condition>>)>;

fn ways<'p>(pattern: &'p [Entry], path: &str) -> Vec<Way<'p>> {
    let mut ways: Vec<Way<'p>> = vec![Vec::new()];
    for entry in pattern {
        let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let alternatives: Vec<Way<'p>> = match entry {
            Entry::Below(name, below) => self::ways(below, &at(name)),
            Entry::Or(branches) => branches.iter().flat_map(|branch| self::ways(branch, path)).collect(),
            Entry::Values(name, all) => {
                let (absent, values): (Vec<_>, Vec<_>) = all.iter().partition(|one| matches!(one, Condition::Absent));
                let present = (!values.is_empty()).then(|| vec![(at(name), Some(values))]);
                present.into_iter().chain((!absent.is_empty()).then(|| vec![(at(name), None)])).collect()
            }
        };
        ways =
            ways.iter().flat_map(|way| alternatives.iter().map(|more| [way.clone(), more.clone()].concat())).collect();
    }
    ways
}

/// Whether the record matches.
pub(in crate::rules) fn matches(pattern: &[Entry], record: &Json) -> bool {
    let fields = flat(record);
    matches_in(pattern, &fields, &fields)
}

fn matches_in(pattern: &[Entry], fields: &[Field], record: &[Field]) -> bool {
    ways(pattern, "").into_iter().any(|way| {
        // By path; of one path twice, what is written last.
        let way: BTreeMap<_, _> = way.into_iter().collect();
        search(&way.into_iter().collect::<Vec<_>>(), &BTreeMap::new(), fields, record)
    })
}

fn search(
    way: &[(String, Option<Vec<&Condition>>)],
    bound: &BTreeMap<usize, usize>,
    fields: &[Field],
    record: &[Field],
) -> bool {
    let Some(((path, wanted), rest)) = way.split_first() else { return true };
    let consistent = |field: &&Field| {
        field.path == *path
            && field.within.iter().all(|(array, index)| bound.get(array).is_none_or(|other| other == index))
    };
    let mut found = fields.iter().filter(consistent);
    match wanted {
        None => found.next().is_none() && search(rest, bound, fields, record),
        Some(wanted) => found.any(|field| {
            wanted.iter().any(|one| one.holds(&field.leaf, record)) && {
                let bound = bound.iter().chain(&field.within).map(|(array, index)| (*array, *index)).collect();
                search(rest, &bound, fields, record)
            }
        }),
    }
}

/// A pattern, a record, and whether they match, for fuzzing: the first byte says of which kind, the next 32 are the seed.
pub(crate) fn chosen(by: &[u8]) -> Option<(String, String, bool)> {
    let (kind, by) = by.split_first()?;
    // Not `PassThrough`: it halves what is left at each choice, and once it gives zeros only, choosing never ends.
    let mut seed = [0; 32];
    seed.iter_mut().zip(by).for_each(|(to, from)| *to = *from);
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), random);
    let (pattern, record) = match kind % 4 {
        0 => single_conditions().new_tree(&mut runner).ok()?.current(),
        1 => bound_fields().new_tree(&mut runner).ok()?.current(),
        _ => (patterns(NAMES), records()).new_tree(&mut runner).ok()?.current(),
    };
    Some((written(&pattern), record.written(), matches(&pattern, &record)))
}

const TEXTS: [&str; 13] =
    ["", "a", "b", "ab", "ba", "A", "aB", "é", "É", "10.0.0.1", "10.0.0.9", "::1", "0:0:0:0:0:0:0:1"];
const NUMBERS: [&str; 9] = ["0", "-0.0", "1", "1.0", "10e-1", "-1", "2", "2.50", "25E-1"];
const PATHS: [&str; 6] = ["a", "b", "c", "a.b", "b.a", "a.b.c"];

pub(in crate::rules) fn texts() -> impl Strategy<Value = Text> {
    (prop::sample::select(&TEXTS[..]), prop::bool::weighted(0.2))
        .prop_map(|(text, escaped)| Text { text: text.to_owned(), escaped })
}

fn keys() -> impl Strategy<Value = Text> {
    let key = prop_oneof![5 => Just("a"), 4 => Just("b"), 3 => Just("c"), 1 => Just("a.b"), 1 => Just("b.c")];
    (key, prop::bool::weighted(0.1)).prop_map(|(key, escaped)| Text { text: key.to_owned(), escaped })
}

fn scalars() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        1 => Just(Leaf::Null),
        1 => any::<bool>().prop_map(Leaf::Bool),
        3 => prop::sample::select(&NUMBERS[..]).prop_map(Leaf::Number),
        8 => texts().prop_map(Leaf::Text),
    ];
    leaf.prop_map(Json::Leaf)
}

fn nested(leaf: impl Strategy<Value = Json> + 'static, size: u32) -> impl Strategy<Value = Json> {
    leaf.prop_recursive(4, size, 4, |inner| {
        prop_oneof![
            2 => prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            3 => prop::collection::vec((keys(), inner), 0..5).prop_map(Json::Object),
        ]
    })
}

/// Values to stand in a record.
pub(in crate::rules) fn values() -> impl Strategy<Value = Json> {
    let document = (nested(scalars(), 8), any::<bool>()).prop_map(|(json, encoded)| match json {
        Json::Leaf(_) => json,
        json => Json::Leaf(Leaf::Document(Box::new(json), encoded)),
    });
    nested(prop_oneof![6 => scalars(), 1 => document], 24)
}

pub(in crate::rules) fn records() -> impl Strategy<Value = Json> {
    prop::collection::vec((keys(), values()), 0..5).prop_map(Json::Object)
}

fn simple_conditions() -> impl Strategy<Value = Condition> {
    let part = || prop::sample::select(&["a", "b", "A", "é", "10.", "ab"][..]);
    prop_oneof![
        6 => prop::sample::select(&TEXTS[..]).prop_map(Condition::Text),
        2 => prop::sample::select(&NUMBERS[..]).prop_map(Condition::Number),
        1 => any::<bool>().prop_map(Condition::Bool),
        1 => Just(Condition::Null),
        3 => Just(Condition::Exists),
        1 => prop::sample::select(&TEXTS[..]).prop_map(Condition::Exactly),
        2 => negatable_conditions(part()),
        1 => part().prop_map(Condition::PrefixAnyCase),
        1 => part().prop_map(Condition::SuffixAnyCase),
        2 => numeric_conditions(),
        1 => prop_oneof![
            Just(Condition::Cidr("10.0.0.0", 24)),
            Just(Condition::Cidr("10.0.0.5", 24)),
            Just(Condition::Cidr("10.0.0.1", 32)),
            Just(Condition::Cidr("::", 64)),
        ],
    ]
}

fn numeric_conditions() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Numeric(r#"[">", 0]"#, |n| n > 0.0)),
        Just(Condition::Numeric(r#"[">=", 0]"#, |n| n >= 0.0)),
        Just(Condition::Numeric(r#"["<=", 1.0]"#, |n| n <= 1.0)),
        Just(Condition::Numeric(r#"["=", -0.0]"#, |n| n == 0.0)),
        Just(Condition::Numeric(r#"["<", 25e-1, ">=", 1]"#, |n| (1.0..2.5).contains(&n))),
        Just(Condition::Numeric(r#"[">", -1, "<", 2]"#, |n| n > -1.0 && n < 2.0)),
    ]
}

/// What EventBridge takes under `anything-but`.
fn negatable_conditions(
    part: impl Strategy<Value = &'static str> + Clone + 'static,
) -> impl Strategy<Value = Condition> {
    prop_oneof![
        part.clone().prop_map(Condition::Prefix),
        part.clone().prop_map(Condition::Suffix),
        part.prop_map(Condition::EqualAnyCase),
        prop::sample::select(&["*", "a*", "*b", "a*b", "*a*", "1*.*.1", "\\**", "ab", ""][..])
            .prop_map(Condition::Wildcard),
    ]
}

fn regexes() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Regex("^a", |text| text.starts_with('a'))),
        Just(Condition::Regex("(?s)a.*b", |text| text.split_once('a').is_some_and(|(_, rest)| rest.contains('b')))),
        Just(Condition::Regex("(?i)^É$", |text| text.to_lowercase() == "é")),
        Just(Condition::Regex(r"^\d+\.", |text| text.starts_with("10."))),
    ]
}

fn conditions(below: impl Strategy<Value = Pattern> + Clone + 'static) -> impl Strategy<Value = Condition> {
    let part = || prop::sample::select(&["a", "b", "A", "10."][..]);
    let json = below.prop_map(Condition::Json);
    let ours = prop_oneof![
        prop::sample::select(&PATHS[..]).prop_map(Condition::Field),
        prop::sample::select(&["few", "net"][..]).prop_map(Condition::List),
        regexes(),
        json,
    ]
    .boxed();
    let same_kind = (negatable_conditions(part()), prop::collection::vec(part(), 1..3)).prop_map(|(kind, parts)| {
        let each = |part| match kind {
            Condition::Prefix(_) => Condition::Prefix(part),
            Condition::Suffix(_) => Condition::Suffix(part),
            Condition::Wildcard(_) => Condition::Wildcard(part),
            _ => Condition::EqualAnyCase(part),
        };
        parts.into_iter().map(each).collect()
    });
    let unwanted = prop_oneof![
        prop::collection::vec(prop::sample::select(&TEXTS[..]), 1..3).prop_map(Unwanted::Texts),
        prop::collection::vec(prop::sample::select(&NUMBERS[..]), 1..3).prop_map(Unwanted::Numbers),
        negatable_conditions(part()).prop_map(Unwanted::Like),
        ours.clone().prop_map(Unwanted::Like),
        same_kind.prop_map(Unwanted::AnyLike),
    ];
    prop_oneof![
        12 => simple_conditions(),
        4 => Just(Condition::Absent),
        3 => ours,
        3 => unwanted.prop_map(|unwanted| Condition::AnythingBut(Box::new(unwanted))),
    ]
}

/// A key stands in an object once.
fn once(entries: Pattern) -> Pattern {
    let mut kept: BTreeSet<&str> = BTreeSet::new();
    let name = |entry: &Entry| match entry {
        Entry::Below(name, _) | Entry::Values(name, _) => *name,
        Entry::Or(_) => "$or",
    };
    entries.into_iter().filter(|entry| kept.insert(name(entry))).collect()
}

fn leaf_patterns() -> impl Strategy<Value = Pattern> {
    let values = prop::collection::vec(prop_oneof![3 => simple_conditions(), 1 => Just(Condition::Absent)], 1..3);
    prop::collection::vec((prop::sample::select(&PATHS[..]), values), 1..3)
        .prop_map(|all| once(all.into_iter().map(|(name, values)| Entry::Values(name, values)).collect()))
}

/// Patterns whose fields are named by `names`.
pub(in crate::rules) fn patterns(names: &'static [&'static str]) -> impl Strategy<Value = Pattern> {
    let values = move |below: BoxedStrategy<Pattern>| {
        (prop::sample::select(names), prop::collection::vec(conditions(below), 1..4))
            .prop_map(|(name, values)| Entry::Values(name, values))
    };
    let flat = prop::collection::vec(values(leaf_patterns().boxed()), 1..4).prop_map(once).boxed();
    flat.prop_recursive(3, 12, 3, move |inner| {
        let entry = prop_oneof![
            4 => values(leaf_patterns().boxed()),
            2 => (prop::sample::select(names), inner.clone()).prop_map(|(name, below)| Entry::Below(name, below)),
            1 => prop::collection::vec(inner, 2..4).prop_map(Entry::Or),
        ];
        prop::collection::vec(entry, 1..4).prop_map(once)
    })
}

/// Exact texts, one way or another: what an index can find rules by.
pub(in crate::rules) fn named_texts(names: &'static [&'static str]) -> impl Strategy<Value = Pattern> {
    let text = prop::sample::select(&["a", "b", "ab", "é", "10.0.0.1"][..]).prop_map(Condition::Text);
    let wanted = prop_oneof![8 => text, 1 => Just(Condition::Absent), 1 => Just(Condition::Exists)];
    let field = (prop::sample::select(names), prop::collection::vec(wanted, 1..3));
    let field = field.prop_map(|(name, wanted)| Entry::Values(name, wanted));
    let fields = prop::collection::vec(field, 1..3).prop_map(once);
    let branches = prop::collection::vec(fields.clone(), 2..4).prop_map(Entry::Or);
    (fields, prop::option::weighted(0.3, branches), any::<bool>()).prop_map(|(mut entries, or, alone)| match or {
        Some(or) if alone => vec![or],
        or => {
            entries.extend(or);
            entries
        }
    })
}

/// One condition, and a record with one field `a`.
pub(in crate::rules) fn single_conditions() -> impl Strategy<Value = (Pattern, Json)> {
    let value = prop_oneof![4 => scalars(), 1 => values()];
    let others = prop::collection::vec((keys(), scalars()), 0..2);
    (conditions(leaf_patterns().boxed()), value, others).prop_map(|(condition, value, mut members)| {
        members.push((plain("a"), value));
        (vec![Entry::Values("a", vec![condition])], Json::Object(members))
    })
}

/// What binds fields to elements of arrays, with little else that could decide.
pub(in crate::rules) fn bound_fields() -> impl Strategy<Value = (Pattern, Json)> {
    let value = || prop::sample::select(&["a", "b"][..]);
    let wanted = prop_oneof![
        3 => value().prop_map(|text| vec![Condition::Text(text)]),
        1 => Just(vec![Condition::Exists]),
        2 => Just(vec![Condition::Absent]),
        1 => value().prop_map(|text| vec![Condition::Absent, Condition::Text(text)]),
    ];
    let field = (prop::sample::select(&["a", "b", "c", "a.b", "a.c", "b.c", "a.b.c"][..]), wanted);
    let field = field.prop_map(|(name, wanted)| Entry::Values(name, wanted));
    let fields = prop::collection::vec(field, 1..5).prop_map(once);
    let branches = prop::collection::vec(fields.clone(), 2..4).prop_map(Entry::Or);
    let pattern = (fields, prop::option::weighted(0.2, branches)).prop_map(|(mut entries, or)| {
        entries.extend(or);
        entries
    });
    let leaf = value().prop_map(|text| Json::Leaf(Leaf::Text(plain(text))));
    let inner = leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 1..4).prop_map(Json::Array),
            2 => prop::collection::vec((keys(), inner), 1..4).prop_map(Json::Object),
        ]
    });
    (pattern, prop::collection::vec((keys(), inner), 1..4).prop_map(Json::Object))
}

/// The names of the records here.
pub(in crate::rules) const NAMES: &[&str] = &["a", "b", "c", "a.b", "b.c", "a.b.c"];
