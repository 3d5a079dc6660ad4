//! The catalogue of rules: what each is called, how bad it is, and to which group it belongs.

use super::Severity;

/// What a rule is about; `validate --only GROUP` looks at one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Names, numbers, empty files.
    Files,
    /// Whether a PostgreSQL parser takes it.
    Syntax,
    /// What destroys rows or cannot be undone.
    Data,
    /// Locks that stop the application, and rewrites of whole tables.
    Locks,
    /// What an old version of the application would stumble over.
    Compatibility,
    /// Secrets, grants, functions with their owner's rights.
    Security,
    /// Indexes, row level security and names, over the schema that the folder builds.
    Schema,
    /// Types and habits.
    Style,
}

impl Group {
    /// All of them.
    pub const ALL: [Group; 8] = [
        Group::Files,
        Group::Syntax,
        Group::Data,
        Group::Locks,
        Group::Compatibility,
        Group::Security,
        Group::Schema,
        Group::Style,
    ];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Group::Files => "files",
            Group::Syntax => "syntax",
            Group::Data => "data",
            Group::Locks => "locks",
            Group::Compatibility => "compatibility",
            Group::Security => "security",
            Group::Schema => "schema",
            Group::Style => "style",
        }
    }
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// As directives and the configuration name it.
    pub id: &'static str,
    /// What it is about.
    pub group: Group,
    /// How bad a finding is; `None`: it is only looked for when the configuration asks.
    pub severity: Option<Severity>,
    /// In one sentence, for machines that list rules.
    pub summary: &'static str,
}

/// The rule of that name.
pub fn rule(id: &str) -> Option<&'static Rule> {
    OURS.iter().chain(LINTER).find(|rule| rule.id == id)
}

/// All rules: ours, then the linter's.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    OURS.iter().chain(LINTER)
}

const fn is(id: &'static str, group: Group, severity: Severity, summary: &'static str) -> Rule {
    Rule { id, group, severity: Some(severity), summary }
}

const fn asked(id: &'static str, group: Group, summary: &'static str) -> Rule {
    Rule { id, group, severity: None, summary }
}

use Group::{Compatibility, Data, Files, Locks, Schema, Security, Style, Syntax};
use Severity::{Error, Note, Warning};

/// Rules of ripcord's own.
pub const OURS: &[Rule] = &[
    is("file-name", Files, Error, "a file that no layout knows"),
    is("empty-file", Files, Warning, "a migration without a statement"),
    is("missing-down", Files, Warning, "a migration without a DOWN"),
    is("duplicate-version", Files, Error, "two files with one number"),
    is("version-gap", Files, Note, "a number that is left out"),
    is("dependency", Files, Error, "migrations that depend on each other, or on what is not there"),
    is("metadata", Files, Note, "something in a file's header that is not understood"),
    is("unknown-rule", Files, Warning, "an allowance of a rule that there is not"),
    is("syntax", Syntax, Error, "a statement that PostgreSQL's grammar does not know"),
    is("transaction-control", Syntax, Error, "BEGIN, COMMIT and the like inside a migration"),
    is("placeholder", Syntax, Error, "a `${…}` that Flyway would fill in"),
    is("destructive", Data, Warning, "rows, columns or values that are there go or change"),
    is("destructive-without-down", Data, Warning, "destructive, and there is no DOWN"),
    is("secret", Security, Error, "a password, token or key in the file"),
    is("high-entropy", Security, Warning, "a text that looks like a secret"),
    is("grant-to-public", Security, Warning, "rights for everybody"),
    is("security-definer-search-path", Security, Warning, "SECURITY DEFINER without a fixed search_path"),
    is("foreign-key-without-index", Schema, Warning, "a foreign key whose columns no index begins with"),
    asked("row-level-security", Schema, "a new table without row level security"),
    asked("naming", Schema, "a name against the conventions"),
    is("large-table", Locks, Warning, "a statement that works through a large table of the live database"),
];

/// Rules of the squawk linter that say something about a tool which runs a migration in a transaction of its
/// own, under timeouts of its own. Its rules about timeouts, transactions and IF EXISTS are not among them, and
/// those about DROP TABLE and DROP COLUMN are our `destructive`.
pub const LINTER: &[Rule] = &[
    is("require-concurrent-index-creation", Locks, Warning, "CREATE INDEX stops writes while it builds"),
    is(
        "require-concurrent-index-deletion",
        Locks,
        Warning,
        "DROP INDEX waits for, and stops, every query of the table",
    ),
    is("require-concurrent-partition-detach", Locks, Warning, "DETACH PARTITION stops the whole table"),
    is("require-concurrent-reindex", Locks, Warning, "REINDEX stops writes while it builds"),
    is("constraint-missing-not-valid", Locks, Warning, "a new constraint is checked while the table is locked"),
    is("adding-foreign-key-constraint", Locks, Warning, "a new foreign key is checked while both tables are locked"),
    is("adding-field-with-default", Locks, Warning, "a default that is computed for each row rewrites the table"),
    is("adding-not-nullable-field", Locks, Warning, "SET NOT NULL reads the table while it is locked"),
    is(
        "adding-serial-primary-key-field",
        Locks,
        Warning,
        "a new primary key builds its index while the table is locked",
    ),
    is("disallowed-unique-constraint", Locks, Warning, "a new unique constraint builds its index under a lock"),
    is("changing-column-type", Locks, Warning, "another type rewrites the table, and its clients may not know it"),
    is(
        "ban-alter-domain-with-add-constraint",
        Locks,
        Warning,
        "a domain's new constraint reads every table that uses it",
    ),
    is("ban-truncate-cascade", Data, Warning, "TRUNCATE CASCADE empties tables that are not named"),
    is("ban-drop-database", Data, Warning, "DROP DATABASE in a migration"),
    is(
        "adding-required-field",
        Compatibility,
        Warning,
        "a new NOT NULL column without a default fails for old writers",
    ),
    is("renaming-column", Compatibility, Warning, "old versions of the application ask for the old name"),
    is("renaming-table", Compatibility, Warning, "old versions of the application ask for the old name"),
    is("renaming-object", Compatibility, Note, "old versions of the application ask for the old name"),
    is("ban-set-schema", Compatibility, Note, "old versions of the application look in the old schema"),
    is("ban-drop-not-null", Compatibility, Note, "old versions of the application may not expect NULL"),
    is("ban-drop-view", Compatibility, Note, "old versions of the application may read it"),
    is("ban-drop-function", Compatibility, Note, "old versions of the application may call it"),
    is("ban-drop-type", Compatibility, Note, "old versions of the application may use it"),
    is("ban-drop-domain", Compatibility, Note, "old versions of the application may use it"),
    is("ban-drop-sequence", Compatibility, Note, "old versions of the application may use it"),
    is("ban-drop-schema", Compatibility, Note, "old versions of the application may use it"),
    is("ban-drop-extension", Compatibility, Note, "what it brought goes with it"),
    is("ban-drop-default", Compatibility, Note, "old writers may rely on the default"),
    is("ban-drop-constraint", Compatibility, Note, "what it kept out can come in"),
    is("ban-drop-generated-expression", Compatibility, Note, "old writers do not fill the column"),
    is("ban-alter-identity", Compatibility, Note, "old writers may rely on the identity"),
    asked("ban-drop-trigger", Compatibility, "what it did is no longer done"),
    asked("ban-drop-index", Compatibility, "queries may become slow"),
    asked("ban-drop-policy", Compatibility, "who may see which rows changes"),
    asked("ban-create-policy", Compatibility, "who may see which rows changes"),
    asked("ban-alter-policy-condition", Compatibility, "who may see which rows changes"),
    asked("ban-alter-policy-roles", Compatibility, "who may see which rows changes"),
    asked("ban-alter-row-level-security", Compatibility, "who may see which rows changes"),
    asked("ban-revoke", Compatibility, "somebody loses a right"),
    asked("ban-set-default", Compatibility, "new rows look otherwise"),
    asked("ban-disable-trigger", Compatibility, "what it did is no longer done"),
    asked("ban-replica-identity", Compatibility, "what subscribers receive changes"),
    asked("ban-replace-view-function", Compatibility, "a view or a function says something else"),
    asked("ban-alter-generated-expression", Compatibility, "the table is rewritten with other values"),
    asked("ban-alter-function-options", Compatibility, "a function behaves otherwise"),
    asked("ban-alter-view-options", Compatibility, "a view behaves otherwise"),
    asked("ban-alter-role-options", Compatibility, "a role can do something else"),
    asked("ban-alter-database-options", Compatibility, "every session behaves otherwise"),
    asked("ban-alter-system-options", Compatibility, "the whole server behaves otherwise"),
    asked("ban-alter-extension", Compatibility, "an extension changes"),
    asked("ban-new-write-restriction", Compatibility, "writes that worked may fail"),
    asked("ban-add-enum-value", Compatibility, "old versions of the application do not know it"),
    asked("ban-add-composite-attribute", Compatibility, "old versions of the application do not know it"),
    asked("ban-add-column", Compatibility, "SELECT * gives more"),
    asked("ban-detach-inheritance", Compatibility, "queries of the parent give less"),
    asked("ban-alter-sequence-values", Compatibility, "numbers may come twice"),
    is("identifier-too-long", Style, Warning, "PostgreSQL cuts names off after 63 bytes"),
    is("ban-duplicate-column-assignments", Style, Warning, "a column is set twice in one statement"),
    is("ban-char-field", Style, Note, "char(n) pads with blanks"),
    is("ban-create-domain-with-constraint", Style, Note, "a domain's constraint is hard to change later"),
    asked("prefer-bigint-over-int", Style, "an int runs out at two thousand million"),
    asked("prefer-bigint-over-smallint", Style, "a smallint runs out at 32 767"),
    asked("prefer-identity", Style, "identity columns in place of serial"),
    asked("prefer-text-field", Style, "a limit of length is easier changed in a check"),
    is("prefer-timestamp-tz", Style, Note, "a time without a zone means something else in each session"),
    asked("require-table-schema", Style, "tables are named with their schema"),
    asked("require-enum-value-ordering", Style, "ADD VALUE says BEFORE or AFTER"),
    is("unused-ignore", Style, Note, "an ignore comment that names no rule"),
];
