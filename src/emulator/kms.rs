//! KMS: keys as they are described, and their policies. Nothing is encrypted.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};
use winterbaume_core::MockResponse;

use super::{ACCOUNT, wire};
use crate::env::lock;

pub(super) struct Keys {
    region: String,
    /// By id.
    keys: Mutex<BTreeMap<String, Key>>,
}

struct Key {
    policy: String,
    state: &'static str,
}

impl Keys {
    pub(super) fn new(region: &str) -> Self {
        Self { region: region.to_owned(), keys: Mutex::default() }
    }

    pub(super) fn answer(&self, operation: &str, body: &[u8]) -> MockResponse {
        let Ok(input) = serde_json::from_slice::<Value>(body) else {
            return wire::error("kms", 400, "SerializationException", "the body is not JSON");
        };
        let text = |name: &str| input.get(name).and_then(Value::as_str).unwrap_or_default();
        let mut keys = lock(&self.keys);
        if operation == "CreateKey" {
            let id = wire::uuid();
            let root = json!({ "Statement": [{
                "Effect": "Allow", "Principal": { "AWS": format!("arn:aws:iam::{ACCOUNT}:root") },
                "Action": "kms:*", "Resource": "*",
            }]});
            let policy =
                Some(text("Policy")).filter(|policy| !policy.is_empty()).map_or(root.to_string(), str::to_owned);
            let metadata = self.metadata(&id, "Enabled");
            keys.insert(id, Key { policy, state: "Enabled" });
            return MockResponse::json(200, json!({ "KeyMetadata": metadata }).to_string());
        }
        let wanted = text("KeyId");
        let id = wanted.rsplit('/').next().unwrap_or_default();
        let Some(key) = keys.get_mut(id) else {
            return wire::error("kms", 400, "NotFoundException", &format!("Key '{wanted}' does not exist"));
        };
        let output = match operation {
            "DescribeKey" => json!({ "KeyMetadata": self.metadata(id, key.state) }),
            "GetKeyPolicy" => json!({ "Policy": key.policy, "PolicyName": "default" }),
            "PutKeyPolicy" => {
                text("Policy").clone_into(&mut key.policy);
                json!({})
            }
            "DisableKey" => {
                key.state = "Disabled";
                json!({})
            }
            _ => {
                let message = format!("the emulator's KMS does not know {operation}");
                return wire::error("kms", 400, "InvalidAction", &message);
            }
        };
        MockResponse::json(200, output.to_string())
    }

    fn metadata(&self, id: &str, state: &str) -> Value {
        json!({
            "AWSAccountId": ACCOUNT,
            "KeyId": id,
            "Arn": format!("arn:aws:kms:{}:{ACCOUNT}:key/{id}", self.region),
            "Enabled": state == "Enabled",
            "KeyState": state,
            "KeyManager": "CUSTOMER",
            "KeyUsage": "ENCRYPT_DECRYPT",
        })
    }
}
