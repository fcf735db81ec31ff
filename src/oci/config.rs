//! The image config: what the image runs on, its diffIDs and its history.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::document::{Document, parse_typed, parse_value};
use super::manifest::set;
use super::platform::Platform;
use super::shape;
use crate::error::{OciError, shown};
use crate::types::DiffId;

/// An image config. The JSON it came from is kept, and edits are made there.
#[derive(Clone, PartialEq, Debug)]
pub struct ImageConfig {
    /// What the image runs on; empty texts if the config does not say.
    pub platform: Platform,
    /// When it was made, as it stands there (RFC 3339).
    pub created: Option<String>,
    /// The diffIDs of the layers, bottom first.
    pub diff_ids: Vec<DiffId>,
    /// How it was made, one entry for each step.
    pub history: Vec<History>,
    media_type: String,
    raw: Value,
}

/// One step in the making of an image.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct History {
    /// When (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_layer: Option<bool>,
}

#[derive(Deserialize)]
struct Fields {
    architecture: Option<String>,
    os: Option<String>,
    variant: Option<String>,
    #[serde(rename = "os.version")]
    os_version: Option<String>,
    created: Option<String>,
    rootfs: RootFs,
    history: Option<Vec<History>>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

impl ImageConfig {
    /// Reads a config; `what` names it in errors.
    pub fn parse(document: &Document, what: &str) -> Result<Self, OciError> {
        let raw = parse_value(&document.bytes, what, &shape::CONFIG)?;
        let fields: Fields = parse_typed(&raw, what)?;
        let diff_id = |text: String| {
            text.parse().map(DiffId).map_err(|source| OciError::Value { what: what.to_owned(), source })
        };
        let diff_ids = fields.rootfs.diff_ids.unwrap_or_default().into_iter().map(diff_id);
        Ok(ImageConfig {
            platform: Platform {
                os: fields.os.unwrap_or_default(),
                architecture: fields.architecture.unwrap_or_default(),
                variant: fields.variant.filter(|variant| !variant.is_empty()),
                os_version: fields.os_version,
            },
            created: fields.created,
            diff_ids: diff_ids.collect::<Result<_, _>>()?,
            history: fields.history.unwrap_or_default(),
            media_type: document.media_type.clone(),
            raw,
        })
    }

    /// Refuses an image whose files are not given as layers, as nobody here knows how. A type that is missing or empty says nothing.
    ///
    /// Returns [`OciError::RootFsType`] if it is so; `what` names the config.
    pub(super) fn check_type(&self, what: &str) -> Result<(), OciError> {
        let found = self.raw.get("rootfs").and_then(|rootfs| rootfs.get("type"));
        match found {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(text)) if ["", "layers"].contains(&text.as_str()) => Ok(()),
            Some(other) => {
                Err(OciError::RootFsType { what: what.to_owned(), found: shown(other.to_string()) })
            }
        }
    }

    /// A config without layers, for an image made from nothing.
    pub fn new(platform: &Platform) -> Self {
        let mut raw = json!({ "architecture": platform.architecture, "os": platform.os });
        if let Some(variant) = &platform.variant {
            set(&mut raw, "variant", json!(variant));
        }
        set(&mut raw, "config", json!({}));
        set(&mut raw, "rootfs", json!({ "type": "layers", "diff_ids": [] }));
        set(&mut raw, "history", json!([]));
        ImageConfig {
            platform: platform.clone(),
            created: None,
            diff_ids: Vec::new(),
            history: Vec::new(),
            media_type: super::media_type::OCI_CONFIG.to_owned(),
            raw,
        }
    }

    /// A field of the `config` object, which says how a container is run (`Env`, `Cmd`, `Labels`, ...).
    pub fn run_field(&self, key: &str) -> Option<&Value> {
        self.raw.get("config")?.get(key)
    }

    /// Sets a field of the `config` object; `null` removes it.
    pub fn set_run_field(&mut self, key: &str, value: Value) {
        let mut config = self.raw.get("config").cloned().unwrap_or(Value::Null);
        match (&mut config, value.is_null()) {
            (Value::Object(object), true) => drop(object.shift_remove(key)),
            (_, true) => return,
            (_, false) => set(&mut config, key, value),
        }
        set(&mut self.raw, "config", config);
    }

    /// Adds a layer on top, and the step that made it.
    pub fn push_layer(&mut self, diff_id: DiffId, mut history: History) {
        history.empty_layer = None;
        let mut rootfs = self.raw.get("rootfs").cloned().unwrap_or(Value::Null);
        self.diff_ids.push(diff_id);
        let diff_ids: Vec<_> = self.diff_ids.iter().map(DiffId::to_string).collect();
        set(&mut rootfs, "diff_ids", json!(diff_ids));
        set(&mut self.raw, "rootfs", rootfs);
        self.push_history(history);
    }

    /// Adds a step that made no layer, such as a changed environment.
    pub fn push_empty_step(&mut self, mut history: History) {
        history.empty_layer = Some(true);
        self.push_history(history);
    }

    /// Sets the time of creation (RFC 3339).
    pub fn set_created(&mut self, created: &str) {
        self.created = Some(created.to_owned());
        set(&mut self.raw, "created", json!(created));
    }

    /// Sets the author.
    pub fn set_author(&mut self, author: &str) {
        set(&mut self.raw, "author", json!(author));
    }

    /// The config as a new document. An unchanged config is better kept as it came.
    pub fn to_document(&self) -> Document {
        Document::from_value(&self.raw, self.media_type.clone())
    }

    fn push_history(&mut self, history: History) {
        // Entries that came keep the fields this program does not know; only the new one is written.
        let mut entries = match self.raw.get("history") {
            Some(Value::Array(entries)) => entries.clone(),
            _ => Vec::new(),
        };
        entries.push(json!(history));
        set(&mut self.raw, "history", Value::Array(entries));
        self.history.push(history);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type::{DOCKER_CONFIG, OCI_CONFIG};
    use crate::types::Digest;

    #[test]
    fn a_commit_keeps_what_it_does_not_know() {
        let base = Digest::sha256(b"base");
        let text = format!(
            r#"{{"zz":{{"b":1,"a":2}},"os":"linux","architecture":"arm","variant":"v7","config":{{"Env":["A=1"],"Healthcheck":{{"Test":[]}}}},"rootfs":{{"x":1,"type":"layers","diff_ids":["{base}"]}},"history":[{{"created_by":"RUN a","mystery":true}}],"docker_version":"1"}}"#
        );
        let document = Document::new(text.clone().into_bytes(), DOCKER_CONFIG);
        let mut config = ImageConfig::parse(&document, "c").unwrap();
        assert_eq!(config.platform.to_string(), "linux/arm/v7");
        assert_eq!(config.to_document(), document);

        let top = DiffId(Digest::sha256(b"top"));
        config.push_layer(top.clone(), History { created_by: Some("RUN b".into()), ..History::default() });
        config.set_run_field("Cmd", json!(["sh"]));
        config.set_run_field("Healthcheck", Value::Null);
        let expected = text
            .replace(&format!("[\"{base}\"]"), &format!("[\"{base}\",\"{top}\"]"))
            .replace("\"mystery\":true}", "\"mystery\":true},{\"created_by\":\"RUN b\"}")
            .replace("\"Healthcheck\":{\"Test\":[]}", "\"Cmd\":[\"sh\"]");
        assert_eq!(String::from_utf8(config.to_document().bytes).unwrap(), expected);
        let again = ImageConfig::parse(&config.to_document(), "c").unwrap();
        assert_eq!(again.diff_ids.last(), Some(&top));
    }

    #[test]
    fn a_config_from_nothing_reads_back() {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let mut config = ImageConfig::new(&platform);
        config.set_created("2020-01-01T00:00:00Z");
        config.push_empty_step(History::default());
        let again = ImageConfig::parse(&config.to_document(), "c").unwrap();
        assert_eq!(again.platform, platform);
        assert_eq!(again.history[0].empty_layer, Some(true));
    }

    #[test]
    fn diff_ids_are_digests() {
        let parse =
            |text: &str| ImageConfig::parse(&Document::new(text.into(), OCI_CONFIG), "c").unwrap_err();
        assert!(matches!(parse(r#"{"rootfs":{"diff_ids":["sha256:../../x"]}}"#), OciError::Value { .. }));
        let twice = r#"{"rootfs":{"diff_ids":[],"Diff_IDs":[]}}"#;
        assert!(matches!(parse(twice), OciError::Ambiguous { .. }));
        assert!(matches!(parse("{}"), OciError::Malformed { .. }));
        assert!(matches!(parse("[]"), OciError::Malformed { .. }));
    }
}
