//! The order of precedence, in one place: option, variable, `.env`, the environment's table, the file's
//! top level, default. Every value remembers where it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ripcord::settings::{Level, OnChanged, OnFailure, Writes};
use ripcord::{Error, Result};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::file::{Section, nearest};
use super::units;
use super::variables::Variables;
use crate::render::scrub;

/// A resolved value, as `ripcord config` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// The key's name in `ripcord.toml`.
    pub key: &'static str,
    /// The value; secrets as `***`.
    pub value: String,
    /// Where it came from.
    pub source: String,
}

/// A variable that one of the guides names, with that guide's unit.
pub struct Guide<T> {
    /// The variable.
    pub name: &'static str,
    /// What its bare number counts, for the note; empty: nothing to say.
    pub unit: &'static str,
    /// Reads it. `None`: this value asks for nothing.
    pub read: fn(&str) -> Result<Option<T>, String>,
}

/// A type that configuration can hold.
pub trait Value: Clone {
    /// Reads a variable's text.
    fn read(text: &str) -> Result<Self, String>;
    /// For people; secrets as `***`.
    fn show(&self) -> String;
    /// Only its variable's name may be told.
    const SECRET: bool = false;
}

/// Resolves values one by one and takes notes.
pub struct Resolver<'a> {
    variables: &'a Variables,
    sections: Vec<(String, &'a Section)>,
    /// What was resolved, in order.
    pub entries: Vec<Entry>,
    /// What is said first: guides' variables in effect.
    pub notes: Vec<String>,
    names: BTreeSet<String>,
}

impl<'a> Resolver<'a> {
    /// `sections`: the strongest first, each with what it is called.
    pub fn new(variables: &'a Variables, sections: Vec<(String, &'a Section)>) -> Self {
        Resolver { variables, sections, entries: Vec::new(), notes: Vec::new(), names: BTreeSet::new() }
    }

    /// Resolves `key`, which has the variable `RIPCORD_<KEY>` besides the guides' own.
    pub fn value<T: Value>(
        &mut self,
        key: &'static str,
        option: Option<T>,
        guides: &[Guide<T>],
        field: impl Fn(&Section) -> Option<T>,
        default: T,
    ) -> Result<T> {
        let found = self.maybe(key, option, guides, field)?;
        Ok(match found {
            Some(value) => value,
            None => {
                self.record(key, default.show(), "default");
                default
            }
        })
    }

    /// Resolves `key`, for which there is no default.
    pub fn optional<T: Value>(
        &mut self,
        key: &'static str,
        option: Option<T>,
        guides: &[Guide<T>],
        field: impl Fn(&Section) -> Option<T>,
    ) -> Result<Option<T>> {
        let found = self.maybe(key, option, guides, field)?;
        if found.is_none() {
            self.record(key, "", "default");
        }
        Ok(found)
    }

    /// Resolves a path: one from the file starts from the file's folder, one from elsewhere from the
    /// current one.
    pub fn path(
        &mut self,
        key: &'static str,
        option: Option<PathBuf>,
        base: &Path,
        field: impl Fn(&Section) -> Option<PathBuf>,
    ) -> Result<Option<PathBuf>> {
        let field = |section: &Section| field(section).map(|path| base.join(path));
        self.optional(key, option, &[], field)
    }

    /// Resolves `key`; records nothing when nobody said anything.
    pub fn maybe<T: Value>(
        &mut self,
        key: &'static str,
        option: Option<T>,
        guides: &[Guide<T>],
        field: impl Fn(&Section) -> Option<T>,
    ) -> Result<Option<T>> {
        let own = variable_name(key);
        self.names.insert(own.clone());
        if let Some(value) = option {
            self.record(key, value.show(), "option");
            return Ok(Some(value));
        }
        let mut names = vec![own.as_str()];
        names.extend(guides.iter().map(|guide| guide.name));
        let variables = self.variables;
        for (index, variable) in variables.in_order(&names) {
            let name = names.get(index).copied().unwrap_or_default();
            let guide = index.checked_sub(1).and_then(|index| guides.get(index));
            let read = match guide {
                Some(guide) => (guide.read)(variable.text),
                None => T::read(variable.text).map(Some),
            };
            let value = read.map_err(|why| {
                let why = if T::SECRET { "it cannot be used".to_owned() } else { why };
                Error::usage(format!("variable `{name}` from {}: {why}", variable.place))
            })?;
            let Some(value) = value else { continue };
            if let Some(guide) = guide {
                let shown = (!T::SECRET).then_some(variable.text);
                self.say_in_effect(guide.name, shown, guide.unit, variable.place);
            }
            self.record(key, value.show(), &format!("{name} from {}", variable.place));
            return Ok(Some(value));
        }
        Ok(self.in_file(key, field))
    }

    /// Resolves `key` from the configuration file alone.
    pub fn in_file<T: Value>(&mut self, key: &'static str, field: impl Fn(&Section) -> Option<T>) -> Option<T> {
        let (value, source) =
            self.sections.iter().find_map(|(name, section)| field(section).map(|value| (value, name.clone())))?;
        self.record(key, value.show(), &source);
        Some(value)
    }

    /// Says that a guide's variable is in effect.
    pub fn say_in_effect(&mut self, name: &str, text: Option<&str>, unit: &str, place: &str) {
        let place = match place {
            super::variables::ENVIRONMENT => place.to_owned(),
            file => format!("`{file}`"),
        };
        let unit = match unit {
            "" => String::new(),
            unit => format!(" ({unit})"),
        };
        self.notes.push(match text {
            Some(text) => format!("using `{name}={text}`{unit} from {place}"),
            None => format!("using `{name}` from {place}"),
        });
    }

    /// Records a value that was found in another way.
    pub fn record(&mut self, key: &'static str, value: impl Into<String>, source: &str) {
        self.entries.push(Entry { key, value: value.into(), source: source.to_owned() });
    }

    /// Makes a variable known that is no key's own.
    pub fn know(&mut self, names: &[&str]) {
        self.names.extend(names.iter().map(|name| (*name).to_owned()));
    }

    /// A warning for each `RIPCORD_` variable that nothing reads: a slip there would be silent otherwise.
    pub fn unknown_variables(&self) -> Vec<String> {
        let known: Vec<&str> = self.names.iter().map(String::as_str).collect();
        self.variables
            .named("RIPCORD_")
            .into_iter()
            .filter(|name| !self.names.contains(*name))
            .map(|name| match nearest(name, &known) {
                Some(near) => {
                    format!("variable `{name}` is not known and not used; did you mean `{near}`?")
                }
                None => format!("variable `{name}` is not known and not used"),
            })
            .collect()
    }
}

/// `timeouts.statement` → `RIPCORD_TIMEOUTS_STATEMENT`.
pub fn variable_name(key: &str) -> String {
    format!("RIPCORD_{}", key.replace('.', "_").to_ascii_uppercase())
}

impl Value for Duration {
    fn read(text: &str) -> Result<Self, String> {
        units::duration(text)
    }
    fn show(&self) -> String {
        units::show_duration(*self)
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl Value for Bytes {
    fn read(text: &str) -> Result<Self, String> {
        units::size(text).map(Bytes)
    }
    fn show(&self) -> String {
        units::show_size(self.0)
    }
}

impl Value for u32 {
    fn read(text: &str) -> Result<Self, String> {
        whole_number(text)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for i32 {
    fn read(text: &str) -> Result<Self, String> {
        whole_number(text)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u64 {
    fn read(text: &str) -> Result<Self, String> {
        whole_number(text)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// Words with a level each, written `rule=level, …` in a variable.
impl Value for BTreeMap<String, Level> {
    fn read(text: &str) -> Result<Self, String> {
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let read = |pair: &str| {
            let (rule, level) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is not like `rule=warning`"))?;
            let level = match level.trim() {
                "off" => Level::Off,
                "note" => Level::Note,
                "warning" => Level::Warning,
                "error" => Level::Error,
                other => return Err(format!("`{other}` is none of off, note, warning, error")),
            };
            Ok((rule.trim().to_owned(), level))
        };
        pairs.map(read).collect()
    }
    fn show(&self) -> String {
        let pairs = self.iter().map(|(rule, level)| format!("{rule}={level:?}").to_lowercase());
        pairs.collect::<Vec<_>>().join(", ")
    }
}

impl Value for usize {
    fn read(text: &str) -> Result<Self, String> {
        whole_number(text)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// Reads a number without sign, point or unit.
pub fn whole_number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("`{text}` is not a whole number"))
}

impl Value for bool {
    fn read(text: &str) -> Result<Self, String> {
        units::yes_or_no(text)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    fn read(text: &str) -> Result<Self, String> {
        Ok(PathBuf::from(text))
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

/// A list; a variable separates its members with commas.
impl Value for Vec<String> {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }
    fn show(&self) -> String {
        self.join(", ")
    }
}

/// A list of folders; a variable separates them with colons, as `PATH` does.
impl Value for Vec<PathBuf> {
    fn read(text: &str) -> Result<Self, String> {
        Ok(std::env::split_paths(text).collect())
    }
    fn show(&self) -> String {
        let shown: Vec<String> = self.iter().map(|path| path.display().to_string()).collect();
        shown.join(", ")
    }
}

impl Value for SecretString {
    const SECRET: bool = true;
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned().into())
    }
    /// A URL without its password; anything else is not taken apart here.
    fn show(&self) -> String {
        scrub::url_for_people(self.expose_secret())
    }
}

macro_rules! words {
    ($type:ty, $what:literal, $($word:literal => $value:path),+) => {
        impl Value for $type {
            fn read(text: &str) -> Result<Self, String> {
                match text.trim() {
                    $($word => Ok($value),)+
                    other => Err(format!(concat!("`{}` is not ", $what, ": write ", words!(@list $($word),+)), other)),
                }
            }
            fn show(&self) -> String {
                match self { $($value => $word,)+ }.to_owned()
            }
        }
    };
    (@list $first:literal $(, $rest:literal)*) => { concat!("`", $first, "`" $(, ", `", $rest, "`")*) };
}

words!(OnFailure, "a way to go on after a failure",
    "auto" => OnFailure::Auto, "rollback" => OnFailure::Rollback,
    "restore" => OnFailure::Restore, "stop" => OnFailure::Stop);
words!(Writes, "a way to treat others' writes",
    "refuse" => Writes::Refuse, "fence" => Writes::Fence, "accept-loss" => Writes::AcceptLoss);
words!(OnChanged, "a way to treat a changed file",
    "error" => OnChanged::Error, "rerun" => OnChanged::Rerun, "warn" => OnChanged::Warn);
