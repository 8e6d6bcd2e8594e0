//! DynamoDB: `winterbaume` keeps the tables and evaluates expressions; the operations around it are here, because its own
//! handlers read and then write without a lock between, which lets two conditional puts both win, copy the whole table
//! after each request, and cannot return the item of a failed condition.
//!
//! Stricter than `winterbaume` where AWS is: reserved words, unused placeholders, empty sets and keys, the item's size.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use serde_json::{Map, Value, json};
use winterbaume_core::MockResponse;
use winterbaume_dynamodb::expr::{self, Expr, Operand};
use winterbaume_dynamodb::state::{DynamoDbError, DynamoDbState};
use winterbaume_dynamodb::types::{
    AttributeDefinition, AttributeValue, GlobalSecondaryIndexDef, Item, KeySchemaElement, PathSegment, Table,
    UpdateAction,
};

use super::{ACCOUNT, wire};
use crate::env::lock;

const ITEM_LIMIT: usize = 400 * 1024;
const TRANSACTION_LIMIT: usize = 100;

/// One request of `Query` or `Scan` looks at so much.
const PAGE_LIMIT: usize = 1024 * 1024;

/// Those of DynamoDB's reserved words that an item of ours has as attribute names.
const RESERVED: [&str; 4] = ["DAY", "RULES", "SOURCE", "TIMESTAMP"];

pub(super) struct Tables {
    region: String,
    state: Mutex<DynamoDbState>,
    /// The tables that can be restored to a point in time.
    recoverable: Mutex<BTreeSet<String>>,
}

#[derive(Default)]
struct Refusal {
    code: &'static str,
    message: String,
    /// The item for which a condition failed, if it was asked for.
    item: Option<Item>,
    /// Of a transaction: why each of its parts did not happen.
    reasons: Option<Box<Value>>,
}

impl Refusal {
    fn invalid(message: impl Into<String>) -> Self {
        Self { code: "ValidationException", message: message.into(), ..Self::default() }
    }

    fn answer(self) -> MockResponse {
        let mut body = json!({
            "__type": format!("com.amazonaws.dynamodb.v20120810#{}", self.code),
            "message": self.message,
        });
        if let Some(item) = self.item {
            wire::set(&mut body, "Item", json!(item));
        }
        if let Some(reasons) = self.reasons {
            wire::set(&mut body, "CancellationReasons", *reasons);
        }
        MockResponse::json(400, body.to_string())
    }
}

impl From<DynamoDbError> for Refusal {
    fn from(error: DynamoDbError) -> Self {
        let code = match error {
            DynamoDbError::ResourceNotFound(_) | DynamoDbError::TableNotFound(_) => "ResourceNotFoundException",
            DynamoDbError::ResourceInUse(_) | DynamoDbError::TableAlreadyExists(_) => "ResourceInUseException",
            _ => "ValidationException",
        };
        Self { code, message: error.to_string(), ..Self::default() }
    }
}

type Answer = Result<Value, Refusal>;

impl Tables {
    pub(super) fn new(region: &str) -> Self {
        Self { region: region.to_owned(), state: Mutex::new(DynamoDbState::default()), recoverable: Mutex::default() }
    }

    /// One request at a time: a condition and its write are one step.
    pub(super) fn answer(&self, operation: &str, body: &[u8]) -> MockResponse {
        let Ok(input) = serde_json::from_slice::<Value>(body) else {
            return wire::error("dynamodb", 400, "SerializationException", "the body is not JSON");
        };
        let state = &mut *lock(&self.state);
        let answered = match operation {
            "CreateTable" => self.create_table(state, &input),
            "DescribeTable" => describe_table(state, &input),
            "ListTables" => Ok(json!({ "TableNames": state.list_tables() })),
            "DeleteTable" => delete_table(state, &input),
            "UpdateTimeToLive" => update_ttl(state, &input),
            "DescribeTimeToLive" => describe_ttl(state, &input),
            "UpdateContinuousBackups" | "DescribeContinuousBackups" => self.backups(state, &input),
            "GetItem" => get_item(state, &input),
            "PutItem" => put_item(state, &input),
            "UpdateItem" => update_item(state, &input),
            "DeleteItem" => delete_item(state, &input),
            "TransactWriteItems" => transact(state, &input),
            "Scan" => scan(state, &input),
            "Query" => query(state, &input),
            _ => Err(Refusal {
                code: "UnknownOperationException",
                message: format!("the emulator's DynamoDB does not know {operation}"),
                ..Refusal::default()
            }),
        };
        match answered {
            Ok(output) => MockResponse::json(200, output.to_string()),
            Err(refusal) => refusal.answer(),
        }
    }

    /// Describes the backups of a table, after the change that the request asks for.
    fn backups(&self, state: &DynamoDbState, input: &Value) -> Answer {
        let name = table_name(input)?;
        state.describe_table(name)?;
        let mut recoverable = lock(&self.recoverable);
        match input.pointer("/PointInTimeRecoverySpecification/PointInTimeRecoveryEnabled").and_then(Value::as_bool) {
            Some(true) => _ = recoverable.insert(name.to_owned()),
            Some(false) => _ = recoverable.remove(name),
            None => {}
        }
        let status = if recoverable.contains(name) { "ENABLED" } else { "DISABLED" };
        Ok(json!({ "ContinuousBackupsDescription": {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": { "PointInTimeRecoveryStatus": status },
        }}))
    }

    fn create_table(&self, state: &mut DynamoDbState, input: &Value) -> Answer {
        let definitions = list(input, "AttributeDefinitions")
            .iter()
            .filter_map(|it| {
                Some(AttributeDefinition {
                    attribute_name: it.get("AttributeName")?.as_str()?.to_owned(),
                    attribute_type: it.get("AttributeType")?.as_str()?.to_owned(),
                })
            })
            .collect();
        let indexes = list(input, "GlobalSecondaryIndexes")
            .iter()
            .filter_map(|it| {
                let projection = it.get("Projection")?;
                Some(GlobalSecondaryIndexDef {
                    index_name: it.get("IndexName")?.as_str()?.to_owned(),
                    key_schema: key_schema(it),
                    projection_type: projection.get("ProjectionType")?.as_str()?.to_owned(),
                    non_key_attributes: list(projection, "NonKeyAttributes")
                        .iter()
                        .filter_map(|name| name.as_str().map(str::to_owned))
                        .collect(),
                })
            })
            .collect();
        let name = table_name(input)?;
        let billing = input.get("BillingMode").and_then(Value::as_str);
        let keys = key_schema(input);
        state.create_table(
            name,
            ACCOUNT,
            &self.region,
            keys,
            definitions,
            billing,
            None,
            false,
            None,
            indexes,
            Vec::new(),
        )?;
        Ok(json!({ "TableDescription": description(state.describe_table(name)?) }))
    }
}

fn describe_table(state: &DynamoDbState, input: &Value) -> Answer {
    Ok(json!({ "Table": description(state.describe_table(table_name(input)?)?) }))
}

fn delete_table(state: &mut DynamoDbState, input: &Value) -> Answer {
    Ok(json!({ "TableDescription": description(&state.delete_table(table_name(input)?)?) }))
}

fn update_ttl(state: &mut DynamoDbState, input: &Value) -> Answer {
    let specification = input.get("TimeToLiveSpecification").cloned().unwrap_or_default();
    let attribute = specification.get("AttributeName").and_then(Value::as_str).unwrap_or_default();
    let enabled = specification.get("Enabled").and_then(Value::as_bool).unwrap_or(false);
    state.update_time_to_live(table_name(input)?, attribute, enabled)?;
    Ok(json!({ "TimeToLiveSpecification": specification }))
}

fn describe_ttl(state: &DynamoDbState, input: &Value) -> Answer {
    let ttl = state.describe_time_to_live(table_name(input)?)?;
    let description = match ttl.filter(|ttl| ttl.enabled) {
        Some(ttl) => json!({ "TimeToLiveStatus": "ENABLED", "AttributeName": ttl.attribute_name }),
        None => json!({ "TimeToLiveStatus": "DISABLED" }),
    };
    Ok(json!({ "TimeToLiveDescription": description }))
}

fn get_item(state: &DynamoDbState, input: &Value) -> Answer {
    let placeholders = Placeholders::read(input, &["ProjectionExpression"])?;
    let key = key_of(state, input)?;
    let Some(item) = state.get_item(table_name(input)?, &key)? else { return Ok(json!({})) };
    Ok(json!({ "Item": placeholders.project(input, item)? }))
}

/// A write that can be done: its request is right and its condition holds.
enum Write<'a> {
    Put {
        table: &'a str,
        item: Item,
    },
    Update {
        table: &'a str,
        key: Item,
        actions: Vec<UpdateAction>,
    },
    Delete {
        table: &'a str,
        key: Item,
    },
    /// Only a condition.
    Check {
        table: &'a str,
        key: Item,
    },
}

impl<'a> Write<'a> {
    fn put(state: &DynamoDbState, input: &'a Value) -> Result<Self, Refusal> {
        let placeholders = Placeholders::read(input, &["ConditionExpression"])?;
        let table = table_name(input)?;
        let item = item_in(input, "Item")?;
        check_keys(state.describe_table(table)?, &item)?;
        check_item(&item)?;
        placeholders.check_condition(input, state.get_item(table, &item)?)?;
        Ok(Self::Put { table, item })
    }

    fn update(state: &DynamoDbState, input: &'a Value) -> Result<Self, Refusal> {
        let placeholders = Placeholders::read(input, &["ConditionExpression", "UpdateExpression"])?;
        let table = table_name(input)?;
        let key = key_of(state, input)?;
        let actions = match input.get("UpdateExpression").and_then(Value::as_str) {
            Some(text) => expr::parse_update_expression(text, &placeholders.names, &placeholders.values)
                .map_err(Refusal::invalid)?,
            None => Vec::new(),
        };
        let existing = state.get_item(table, &key)?.cloned();
        placeholders.check_condition(input, existing.as_ref())?;
        // Tried on a copy first, so that an item that is refused stays as it was.
        let mut after = existing.unwrap_or_else(|| key.clone());
        expr::apply_update_actions(&mut after, &actions).map_err(Refusal::invalid)?;
        check_item(&after)?;
        Ok(Self::Update { table, key, actions })
    }

    fn delete(state: &DynamoDbState, input: &'a Value) -> Result<Self, Refusal> {
        let placeholders = Placeholders::read(input, &["ConditionExpression"])?;
        let table = table_name(input)?;
        let key = key_of(state, input)?;
        placeholders.check_condition(input, state.get_item(table, &key)?)?;
        Ok(Self::Delete { table, key })
    }

    fn check(state: &DynamoDbState, input: &'a Value) -> Result<Self, Refusal> {
        let placeholders = Placeholders::read(input, &["ConditionExpression"])?;
        if input.get("ConditionExpression").is_none() {
            return Err(Refusal::invalid("The ConditionCheck has no ConditionExpression"));
        }
        let table = table_name(input)?;
        let key = key_of(state, input)?;
        placeholders.check_condition(input, state.get_item(table, &key)?)?;
        Ok(Self::Check { table, key })
    }

    /// Of what `TransactItems` holds: one of `Put`, `Update`, `Delete` and `ConditionCheck`.
    fn part(state: &DynamoDbState, part: &'a Value) -> Result<Self, Refusal> {
        let mut kinds = part.as_object().into_iter().flatten();
        match (kinds.next(), kinds.next()) {
            (Some((kind, input)), None) => match kind.as_str() {
                "Put" => Self::put(state, input),
                "Update" => Self::update(state, input),
                "Delete" => Self::delete(state, input),
                "ConditionCheck" => Self::check(state, input),
                _ => Err(Refusal::invalid(format!("TransactItems cannot hold {kind}"))),
            },
            _ => Err(Refusal::invalid("TransactItems can only contain one of Check, Put, Update or Delete")),
        }
    }

    /// Which item it is about.
    fn target(&self, state: &DynamoDbState) -> Result<(String, Vec<String>), Refusal> {
        let (table, item) = match self {
            Self::Put { table, item } => (table, item),
            Self::Update { table, key, .. } | Self::Delete { table, key } | Self::Check { table, key } => (table, key),
        };
        let keys = state.describe_table(table)?.key_schema.iter();
        let keys = keys.filter_map(|key| item.get(&key.attribute_name)).map(sort_key).collect();
        Ok(((*table).to_owned(), keys))
    }

    /// Gives the item before a put or a delete, and the one after an update.
    fn apply(self, state: &mut DynamoDbState) -> Result<Option<Item>, Refusal> {
        Ok(match self {
            Self::Put { table, item } => state.put_item(table, item)?,
            Self::Update { table, key, actions } => state.update_item(table, &key, &actions)?,
            Self::Delete { table, key } => state.delete_item(table, &key)?,
            Self::Check { .. } => None,
        })
    }
}

fn put_item(state: &mut DynamoDbState, input: &Value) -> Answer {
    let old = Write::put(state, input)?.apply(state)?;
    Ok(returned(input, "ALL_OLD", old))
}

fn update_item(state: &mut DynamoDbState, input: &Value) -> Answer {
    let new = Write::update(state, input)?.apply(state)?;
    Ok(returned(input, "ALL_NEW", new))
}

fn delete_item(state: &mut DynamoDbState, input: &Value) -> Answer {
    let old = Write::delete(state, input)?.apply(state)?;
    Ok(returned(input, "ALL_OLD", old))
}

/// All conditions first, then all writes. One request that is wrong, or two for one item, refuse the whole; conditions that
/// fail cancel it, and each part is told why.
fn transact(state: &mut DynamoDbState, input: &Value) -> Answer {
    let parts = list(input, "TransactItems");
    if parts.is_empty() || parts.len() > TRANSACTION_LIMIT {
        let message = format!("TransactItems must hold 1 to {TRANSACTION_LIMIT} items, not {}", parts.len());
        return Err(Refusal::invalid(message));
    }
    let (mut writes, mut reasons, mut targets) = (Vec::new(), Vec::new(), BTreeSet::new());
    for part in parts {
        match Write::part(state, part) {
            Ok(write) => {
                if !targets.insert(write.target(state)?) {
                    let message = "Transaction request cannot include multiple operations on one item";
                    return Err(Refusal::invalid(message));
                }
                writes.push(write);
                reasons.push(json!({ "Code": "None" }));
            }
            Err(refusal) if refusal.code == "ConditionalCheckFailedException" => {
                let mut reason = json!({ "Code": "ConditionalCheckFailed", "Message": refusal.message });
                if let Some(item) = refusal.item {
                    wire::set(&mut reason, "Item", json!(item));
                }
                reasons.push(reason);
            }
            Err(refusal) => return Err(refusal),
        }
    }
    if writes.len() < parts.len() {
        let codes: Vec<_> = reasons.iter().filter_map(|it| it.get("Code")?.as_str()).collect();
        return Err(Refusal {
            code: "TransactionCanceledException",
            message: format!(
                "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
                codes.join(", ")
            ),
            reasons: Some(Box::new(Value::from(reasons))),
            item: None,
        });
    }
    for write in writes {
        write.apply(state)?;
    }
    Ok(json!({}))
}

fn scan(state: &DynamoDbState, input: &Value) -> Answer {
    let placeholders = Placeholders::read(input, &["FilterExpression", "ProjectionExpression"])?;
    let items = items(state, input)?;
    page(input, &placeholders, items, &state.describe_table(table_name(input)?)?.key_schema)
}

fn query(state: &DynamoDbState, input: &Value) -> Answer {
    let expressions = ["KeyConditionExpression", "FilterExpression", "ProjectionExpression"];
    let placeholders = Placeholders::read(input, &expressions)?;
    let table = state.describe_table(table_name(input)?)?;
    let index = match input.get("IndexName").and_then(Value::as_str) {
        None => None,
        Some(name) => {
            let found = table.global_secondary_indexes.iter().find(|index| index.index_name == name);
            let absent = || Refusal::invalid(format!("The table does not have the specified index: {name}"));
            Some(found.ok_or_else(absent)?)
        }
    };
    if index.is_some() && input.get("ConsistentRead") == Some(&json!(true)) {
        return Err(Refusal::invalid("Consistent reads are not supported on global secondary indexes"));
    }
    let keys = index.map_or(&table.key_schema, |index| &index.key_schema);
    let condition = input.get("KeyConditionExpression").and_then(Value::as_str).unwrap_or_default();
    let condition =
        expr::parse_expression(condition, &placeholders.names, &placeholders.values).map_err(Refusal::invalid)?;
    let is_found =
        |item: &Item| keys.iter().all(|key| item.contains_key(&key.attribute_name)) && holds(&condition, item);
    let mut items: Vec<Item> = if index.is_some() {
        found(state, input, is_found)?
    } else {
        // The partition is one of the values: it is looked up, however large the table is.
        let name = table_name(input)?;
        let partitions = placeholders.values.values().filter_map(|value| match value {
            AttributeValue::S(text) => state.tables.get(name)?.items.get(&format!("S:{text}")),
            _ => None,
        });
        partitions.flat_map(HashMap::values).filter(|item| is_found(item)).cloned().collect()
    };
    if let Some(range) = keys.iter().find(|key| key.key_type == "RANGE") {
        items.sort_by_key(|item| item.get(&range.attribute_name).map(sort_key));
    }
    if input.get("ScanIndexForward") == Some(&json!(false)) {
        items.reverse();
    }
    let mut all_keys = table.key_schema.clone();
    if let Some(index) = index {
        all_keys.extend(index.key_schema.iter().cloned());
        if index.projection_type != "ALL" {
            // What an index does not hold, no filter on it sees.
            let holds = |name: &String| {
                index.non_key_attributes.contains(name) || all_keys.iter().any(|key| key.attribute_name == *name)
            };
            for item in &mut items {
                item.retain(|name, _| holds(name));
            }
        }
    }
    page(input, &placeholders, items, &all_keys)
}

/// Names and values that stand for `#name` and `:value` in expressions.
struct Placeholders {
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Placeholders {
    /// Reads them and holds the expressions against the rules that AWS has and the parser has not.
    fn read(input: &Value, expressions: &[&str]) -> Result<Self, Refusal> {
        let texts = expressions.iter().filter_map(|name| input.get(*name).and_then(Value::as_str));
        let text = texts.collect::<Vec<_>>().join(" ");
        let words: BTreeSet<&str> = text
            .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '#' | ':')))
            .filter(|word| !word.is_empty())
            .collect();
        if let Some(word) = words.iter().find(|word| RESERVED.contains(&word.to_ascii_uppercase().as_str())) {
            return Err(Refusal::invalid(format!(
                "Invalid expression: Attribute name is a reserved keyword; reserved keyword: {word}"
            )));
        }
        let names = map_in::<String>(input, "ExpressionAttributeNames")?;
        let values = map_in::<AttributeValue>(input, "ExpressionAttributeValues")?;
        let unused = |kind: &str, name: &String| {
            Refusal::invalid(format!(
                "Value provided in ExpressionAttribute{kind} unused in expressions: keys: {{{name}}}"
            ))
        };
        if let Some(name) = names.keys().find(|name| !words.contains(name.as_str())) {
            return Err(unused("Names", name));
        }
        if let Some(name) = values.keys().find(|name| !words.contains(name.as_str())) {
            return Err(unused("Values", name));
        }
        Ok(Self { names, values })
    }

    fn check_condition(&self, input: &Value, existing: Option<&Item>) -> Result<(), Refusal> {
        let Some(condition) = input.get("ConditionExpression").and_then(Value::as_str) else { return Ok(()) };
        let condition = expr::parse_expression(condition, &self.names, &self.values).map_err(Refusal::invalid)?;
        if holds(&condition, existing.unwrap_or(&Item::new())) {
            return Ok(());
        }
        let wanted = input.get("ReturnValuesOnConditionCheckFailure") == Some(&json!("ALL_OLD"));
        Err(Refusal {
            code: "ConditionalCheckFailedException",
            message: "The conditional request failed".to_owned(),
            item: existing.filter(|_| wanted).cloned(),
            ..Refusal::default()
        })
    }

    fn project(&self, input: &Value, item: &Item) -> Result<Item, Refusal> {
        let projection = input.get("ProjectionExpression").and_then(Value::as_str);
        let paths = expr::parse_projection_expression(projection, &self.names).map_err(Refusal::invalid)?;
        Ok(paths.map_or_else(|| item.clone(), |paths| expr::apply_projection(item, &paths)))
    }
}

/// The items of a table, in an order that stays.
fn items(state: &DynamoDbState, input: &Value) -> Result<Vec<Item>, Refusal> {
    found(state, input, |_| true)
}

/// Those of them that are looked for.
fn found(state: &DynamoDbState, input: &Value, is_found: impl Fn(&Item) -> bool) -> Result<Vec<Item>, Refusal> {
    let name = table_name(input)?;
    state.describe_table(name)?;
    let Some(table) = state.tables.get(name) else { return Ok(Vec::new()) };
    let mut keyed: Vec<_> = table
        .items
        .iter()
        .flat_map(|(hash, items)| items.iter().map(move |(range, item)| ((hash, range), item)))
        .filter(|(_, item)| is_found(item))
        .collect();
    keyed.sort_by_key(|(key, _)| *key);
    Ok(keyed.into_iter().map(|(_, item)| item.clone()).collect())
}

/// The page after `ExclusiveStartKey`, as far as `Limit` and [`PAGE_LIMIT`] allow: they count before a filter does. A
/// page that `Limit` ended has a next one, be it empty.
fn page(input: &Value, placeholders: &Placeholders, mut items: Vec<Item>, keys: &[KeySchemaElement]) -> Answer {
    let start: Item = map_in(input, "ExclusiveStartKey")?;
    if !start.is_empty() {
        let at = items.iter().position(|item| start.iter().all(|(name, value)| item.get(name) == Some(value)));
        let at = at.filter(|_| start.len() == distinct(keys).len());
        let after = at.ok_or_else(|| Refusal::invalid("The provided starting key is invalid"))?.saturating_add(1);
        items.drain(..after);
    }
    let most = input.get("Limit").and_then(Value::as_u64).map_or(usize::MAX, |limit| limit.try_into().unwrap_or(0));
    let mut size = 0_usize;
    let fitting = items.iter().take_while(|item| {
        let fits = size < PAGE_LIMIT;
        size = size.saturating_add(size_of_map(item));
        fits
    });
    let looked_at = fitting.take(most).count();
    let is_cut = looked_at < items.len() || looked_at == most;
    items.truncate(looked_at);
    let last: Option<Item> = items.last().filter(|_| is_cut).map(|item| {
        let names = distinct(keys).into_iter();
        names.filter_map(|name| Some((name.clone(), item.get(name)?.clone()))).collect()
    });
    if let Some(filter) = input.get("FilterExpression").and_then(Value::as_str) {
        let filter =
            expr::parse_expression(filter, &placeholders.names, &placeholders.values).map_err(Refusal::invalid)?;
        items.retain(|item| holds(&filter, item));
    }
    let mut answer = json!({ "Count": items.len(), "ScannedCount": looked_at });
    if let Some(last) = last {
        wire::set(&mut answer, "LastEvaluatedKey", json!(last));
    }
    if input.get("Select") != Some(&json!("COUNT")) {
        let items: Vec<Item> = items.iter().map(|item| placeholders.project(input, item)).collect::<Result<_, _>>()?;
        wire::set(&mut answer, "Items", json!(items));
    }
    Ok(answer)
}

/// Whether a condition holds; `contains` also asks sets, which the parser's own evaluation leaves out.
fn holds(condition: &Expr, item: &Item) -> bool {
    match condition {
        Expr::And(one, other) => holds(one, item) && holds(other, item),
        Expr::Or(one, other) => holds(one, item) || holds(other, item),
        Expr::Not(negated) => !holds(negated, item),
        Expr::Contains(path, Operand::Value(AttributeValue::S(member))) => {
            let found = match path.as_slice() {
                [PathSegment::Attr(name)] => item.get(name),
                _ => None,
            };
            match found {
                Some(AttributeValue::SS(members)) => members.contains(member),
                _ => expr::evaluate(condition, item),
            }
        }
        _ => expr::evaluate(condition, item),
    }
}

fn distinct(keys: &[KeySchemaElement]) -> BTreeSet<&String> {
    keys.iter().map(|key| &key.attribute_name).collect()
}

fn returned(input: &Value, kind: &str, item: Option<Item>) -> Value {
    match item {
        Some(item) if input.get("ReturnValues") == Some(&json!(kind)) => json!({ "Attributes": item }),
        _ => json!({}),
    }
}

fn description(table: &Table) -> Value {
    let keys = |keys: &[KeySchemaElement]| {
        keys.iter()
            .map(|key| json!({ "AttributeName": key.attribute_name, "KeyType": key.key_type }))
            .collect::<Vec<_>>()
    };
    let definitions = table
        .attribute_definitions
        .iter()
        .map(|it| json!({ "AttributeName": it.attribute_name, "AttributeType": it.attribute_type }))
        .collect::<Vec<_>>();
    let indexes = table
        .global_secondary_indexes
        .iter()
        .map(|index| {
            json!({
                "IndexName": index.index_name,
                "IndexArn": format!("{}/index/{}", table.arn, index.index_name),
                "IndexStatus": "ACTIVE",
                "KeySchema": keys(&index.key_schema),
                "Projection": {
                    "ProjectionType": index.projection_type,
                    "NonKeyAttributes": index.non_key_attributes,
                },
            })
        })
        .collect::<Vec<_>>();
    json!({
        "TableName": table.name,
        "TableArn": table.arn,
        "TableStatus": table.table_status,
        "CreationDateTime": table.creation_date_time.timestamp(),
        "ItemCount": table.item_count,
        "TableSizeBytes": 0,
        "KeySchema": keys(&table.key_schema),
        "AttributeDefinitions": definitions,
        "BillingModeSummary": { "BillingMode": table.billing_mode },
        "GlobalSecondaryIndexes": indexes,
    })
}

/// The `Key` of a request: exactly the table's keys, not empty.
fn key_of(state: &DynamoDbState, input: &Value) -> Result<Item, Refusal> {
    let key = item_in(input, "Key")?;
    let table = state.describe_table(table_name(input)?)?;
    if key.len() != table.key_schema.len() {
        return Err(Refusal::invalid("The provided key element does not match the schema"));
    }
    check_keys(table, &key)?;
    Ok(key)
}

fn check_keys(table: &Table, item: &Item) -> Result<(), Refusal> {
    for key in &table.key_schema {
        let name = &key.attribute_name;
        let kind = table.attribute_definitions.iter().find(|it| it.attribute_name == *name);
        let kind = kind.map_or("S", |it| it.attribute_type.as_str());
        let problem = match item.get(name) {
            None => format!("Missing the key {name} in the item"),
            Some(AttributeValue::S(text) | AttributeValue::B(text)) if text.is_empty() => {
                format!("The AttributeValue for a key attribute cannot contain an empty string value. Key: {name}")
            }
            Some(AttributeValue::S(_)) if kind == "S" => continue,
            Some(AttributeValue::N(_)) if kind == "N" => continue,
            Some(AttributeValue::B(_)) if kind == "B" => continue,
            Some(_) => format!("Type mismatch for key {name} expected: {kind}"),
        };
        return Err(Refusal::invalid(format!("One or more parameter values were invalid: {problem}")));
    }
    Ok(())
}

fn check_item(item: &Item) -> Result<(), Refusal> {
    for (name, value) in item {
        if let AttributeValue::SS(members) | AttributeValue::NS(members) | AttributeValue::BS(members) = value {
            let distinct: BTreeSet<&String> = members.iter().collect();
            if members.is_empty() || distinct.len() != members.len() {
                return Err(Refusal::invalid(format!(
                    "One or more parameter values were invalid: the set {name} is empty or contains duplicates"
                )));
            }
        }
    }
    if size_of_map(item) > ITEM_LIMIT {
        return Err(Refusal::invalid("Item size has exceeded the maximum allowed size"));
    }
    Ok(())
}

/// Names and values, roughly as DynamoDB counts them.
fn size_of_map(item: &HashMap<String, AttributeValue>) -> usize {
    item.iter().map(|(name, value)| name.len() + size_of(value)).sum()
}

fn size_of(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(digits) => digits.len() / 2 + 1,
        AttributeValue::B(base64) => base64.len() / 4 * 3,
        AttributeValue::Bool(_) | AttributeValue::Null(_) => 1,
        AttributeValue::SS(members) | AttributeValue::NS(members) => members.iter().map(String::len).sum(),
        AttributeValue::BS(members) => members.iter().map(|member| member.len() / 4 * 3).sum(),
        AttributeValue::L(values) => 3 + values.iter().map(|value| 1 + size_of(value)).sum::<usize>(),
        AttributeValue::M(map) => 3 + map.len() + size_of_map(map),
    }
}

fn sort_key(value: &AttributeValue) -> String {
    match value {
        AttributeValue::S(text) | AttributeValue::B(text) => text.clone(),
        AttributeValue::N(digits) => format!("{digits:0>40}"),
        _ => String::new(),
    }
}

fn table_name(input: &Value) -> Result<&str, Refusal> {
    let name = input.get("TableName").and_then(Value::as_str).unwrap_or_default();
    // A table may also be named by its ARN.
    match name.rsplit('/').next() {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(Refusal::invalid("TableName is missing")),
    }
}

fn key_schema(input: &Value) -> Vec<KeySchemaElement> {
    list(input, "KeySchema")
        .iter()
        .filter_map(|it| {
            Some(KeySchemaElement {
                attribute_name: it.get("AttributeName")?.as_str()?.to_owned(),
                key_type: it.get("KeyType")?.as_str()?.to_owned(),
            })
        })
        .collect()
}

fn list<'a>(input: &'a Value, name: &str) -> &'a [Value] {
    input.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn item_in(input: &Value, name: &str) -> Result<Item, Refusal> {
    let item = map_in(input, name)?;
    if item.is_empty() { Err(Refusal::invalid(format!("{name} is missing"))) } else { Ok(item) }
}

fn map_in<T: serde::de::DeserializeOwned>(input: &Value, name: &str) -> Result<HashMap<String, T>, Refusal> {
    let map: Map<String, Value> = match input.get(name) {
        None | Some(Value::Null) => return Ok(HashMap::new()),
        Some(Value::Object(map)) => map.clone(),
        Some(_) => return Err(Refusal::invalid(format!("{name} is not a map"))),
    };
    map.into_iter()
        .map(|(key, value)| {
            let problem = |error| Refusal::invalid(format!("{name}.{key}: {error}"));
            serde_json::from_value(value).map_err(problem).map(|value| (key.clone(), value))
        })
        .collect()
}
