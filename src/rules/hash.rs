//! A name for what a rule set means.

use sha2::{Digest, Sha256};

use super::file::{DraftBody, File};

/// The first 16 hexadecimal digits of a SHA-256 over what the rules mean: their order, ids, severities, descriptions and
/// what to check, modes, conditions, exceptions, groups, correlations, and the lists, however the file spells them.
pub(super) fn hash(file: &File) -> String {
    let mut hash = Parts(Sha256::new());
    hash.put("trailhound.rules/2");
    for (name, values) in &file.lists {
        hash.all(["list", name, values]);
    }
    for draft in &file.drafts {
        let info = &draft.info;
        // Every kind of part begins with its own word, so that no two rule sets give the same bytes.
        hash.all(["rule", &info.id, info.severity.as_str(), &info.description, info.mode.as_str()]);
        if let Some(check) = &info.check {
            hash.all(["check", check]);
        }
        hash.body(&draft.body);
        for exception in &draft.exceptions {
            let until = exception.until.as_ref().map(|(date, _)| date.to_string()).unwrap_or_default();
            hash.all(["unless", &until]);
            hash.body(&exception.body);
        }
        if let Some(group) = &info.group {
            hash.all(["group", &group.window]);
            group.by.iter().for_each(|path| hash.all(["by", path]));
        }
        if let Some(correlation) = &info.correlation {
            let text = serde_json::to_string(correlation).unwrap_or_default();
            hash.all(["correlation", &text]);
        }
    }
    let digest = hash.0.finalize();
    let first = digest.first_chunk().copied().unwrap_or_default();
    format!("{:016x}", u64::from_be_bytes(first))
}

struct Parts(Sha256);

impl Parts {
    fn put(&mut self, text: &str) {
        self.0.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        self.0.update(text);
    }

    fn all<const N: usize>(&mut self, parts: [&str; N]) {
        for part in parts {
            self.put(part);
        }
    }

    fn body(&mut self, body: &DraftBody) {
        let mut plain: Vec<_> = body.plain.iter().collect();
        plain.sort_by_key(|condition| condition.field);
        for condition in plain {
            self.all(["field", condition.field.key()]);
            condition.any_of().values().for_each(|value| self.all(["value", value]));
        }
        if let Some(pattern) = &body.pattern {
            self.all(["pattern", &pattern.text]);
        }
    }
}
