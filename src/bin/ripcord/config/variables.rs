//! The variables that configuration may come from: the process's own, then those of `.env` files.

use std::collections::BTreeMap;

use super::dotenv::DotEnv;

/// A variable's value and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Variable<'a> {
    /// Its text, never empty.
    pub text: &'a str,
    /// `the environment` or the file's name.
    pub place: &'a str,
}

/// All of them. An empty variable counts as not set: that is how CI systems hand on a missing secret.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    layers: Vec<(String, BTreeMap<String, String>)>,
}

/// Where the process's own variables come from, in notes.
pub const ENVIRONMENT: &str = "the environment";

impl Variables {
    /// The process's own. Those that are not UTF-8 are none of ours.
    pub fn of_process() -> Self {
        Self::of(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// Those given, as if they were the process's own.
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Variables { layers: vec![(ENVIRONMENT.to_owned(), variables.into_iter().collect())] }
    }

    /// Adds a file below everything that is there.
    pub fn add_file(&mut self, file: DotEnv) {
        self.layers.push((file.name, file.values));
    }

    /// The variable, from the highest layer that has it.
    pub fn get(&self, name: &str) -> Option<Variable<'_>> {
        self.in_order(&[name]).next().map(|(_, variable)| variable)
    }

    /// The variable of the process itself, whatever files say.
    pub fn of_process_only(&self, name: &str) -> Option<&str> {
        let (_, values) = self.layers.first()?;
        values.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// All that are set of `names`, each with the name's index: layer by layer from the highest, and
    /// within a layer in the order of the names.
    pub fn in_order<'v, 'n>(
        &'v self,
        names: &'n [&'n str],
    ) -> impl Iterator<Item = (usize, Variable<'v>)> + use<'v, 'n> {
        self.layers.iter().flat_map(move |(place, values)| {
            names.iter().enumerate().filter_map(move |(index, name)| {
                let text = values.get(*name)?;
                (!text.is_empty()).then_some((index, Variable { text, place }))
            })
        })
    }

    /// The names that begin with `prefix`, each once.
    pub fn named(&self, prefix: &str) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .layers
            .iter()
            .flat_map(|(_, values)| values.keys())
            .map(String::as_str)
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
