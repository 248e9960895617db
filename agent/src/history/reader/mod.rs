//! Rows -> answers. Opens read-only, beside a daemon that writes or on a copy.

mod failures;
mod minutes;
mod sums;

use std::{
    collections::HashMap,
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub use self::minutes::{DestinationRow, MinuteRow, ProcessRow};
use super::{
    answer::{Answer, SCHEMA},
    open::with_suffix,
    query::Question,
    rollup::Identity,
    schema::{self, APPLICATION_ID, NO_TEXT},
};

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none.
    #[error("there is no history at {}: `firstfin serve` keeps one; --database names another place", path.display())]
    Absent {
        /// Where
        path: PathBuf,
    },
    /// It may not be read, or not looked at.
    #[error("open the history {}", path.display())]
    File {
        /// Which
        path: PathBuf,
        /// Why not
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is no history of firstfin's", path.display())]
    NotOurs {
        /// Which
        path: PathBuf,
    },
    /// Another version made it.
    #[error("{} is of version {found}, this firstfin reads version {known}: {remedy}", path.display())]
    OtherVersion {
        /// Which
        path: PathBuf,
        /// Its version
        found: i64,
        /// What is understood
        known: i64,
        /// What to do
        remedy: &'static str,
    },
    /// It is damaged, or was written by another version in a way that is not understood.
    #[error("the history {} cannot be read: {what}", path.display())]
    Unusable {
        /// Which
        path: PathBuf,
        /// What is wrong
        what: String,
    },
}

/// A history, open to be read.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
    processes: HashMap<i64, Identity>,
    texts: HashMap<i64, String>,
}

impl Reader {
    /// Opens a history.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => ReadError::Absent { path: path.to_path_buf() },
            _ => ReadError::File { path: path.to_path_buf(), source },
        };
        // SQLite says no more than that it could not open it.
        std::fs::File::open(path).map_err(file)?;
        let unusable =
            |error: rusqlite::Error| ReadError::Unusable { path: path.to_path_buf(), what: error.to_string() };
        let connection = connect(path).map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => ReadError::NotOurs { path: path.to_path_buf() },
            _ => unusable(error),
        })?;
        let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(unusable)?;
        if application != APPLICATION_ID {
            return Err(ReadError::NotOurs { path: path.to_path_buf() });
        }
        let (found, known) = (schema::version(&connection).map_err(unusable)?, schema::newest());
        if found != known {
            let newer = "use the one that wrote it";
            let remedy = if found > known { newer } else { "start `firstfin serve` once, which brings it up to date" };
            return Err(ReadError::OtherVersion { path: path.to_path_buf(), found, known, remedy });
        }
        // One state of the database for all of the answer, while the daemon goes on writing.
        connection.execute_batch("BEGIN").map_err(unusable)?;
        let mut reader =
            Self { connection, path: path.to_path_buf(), processes: HashMap::new(), texts: HashMap::new() };
        reader.read_dictionaries()?;
        Ok(reader)
    }

    fn read_dictionaries(&mut self) -> Result<(), ReadError> {
        let entries = |sql: &str| {
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let texts = entries("SELECT id, text FROM texts").map_err(|error| self.unusable(&error))?;
        let identities = entries("SELECT id, identity FROM processes").map_err(|error| self.unusable(&error))?;
        self.texts = texts.into_iter().collect();
        for (id, text) in identities {
            let identity = serde_json::from_str(&text).map_err(|error| self.unusable(&error))?;
            self.processes.insert(id, identity);
        }
        Ok(())
    }

    /// Answers a question, as things stand at `now`.
    ///
    /// # Errors
    /// [`ReadError::Unusable`]
    pub fn answer(&self, question: &Question, now: Timestamp) -> Result<Answer, ReadError> {
        let mut answer = self.empty(question, now)?;
        self.host(question, &mut answer)?;
        self.findings(question, now, &mut answer)?;
        if question.filter.destination.is_none() {
            self.processes(question, &mut answer)?;
        }
        self.destinations(question, &mut answer)?;
        self.routes(question, &mut answer)?;
        self.failures(question, &mut answer)?;
        if question.by_minute {
            self.by_minute(question, &mut answer)?;
        }
        Ok(answer)
    }

    fn empty(&self, question: &Question, now: Timestamp) -> Result<Answer, ReadError> {
        Ok(Answer {
            schema: SCHEMA.to_owned(),
            period: self.period(question, now)?,
            hosts: Vec::new(),
            time_wait: None,
            findings: Vec::new(),
            findings_omitted: 0,
            processes: Vec::new(),
            processes_omitted: 0,
            other_processes: None,
            destinations: Vec::new(),
            destinations_omitted: 0,
            other_destinations: 0,
            routes: Vec::new(),
            routes_omitted: 0,
            failures: Vec::new(),
            failures_omitted: 0,
            other_failures: 0,
            minutes: Vec::new(),
            minutes_omitted: 0,
        })
    }

    fn unusable(&self, error: &dyn std::error::Error) -> ReadError {
        ReadError::Unusable { path: self.path.clone(), what: error.to_string() }
    }

    /// Every row of a query, as `read` makes it.
    fn rows<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, ReadError> {
        let query = || {
            let mut statement = self.connection.prepare(sql)?;
            statement.query_map(values, read)?.collect::<rusqlite::Result<Vec<_>>>()
        };
        query().map_err(|error| self.unusable(&error))
    }

    fn process(&self, id: i64) -> Option<&Identity> {
        self.processes.get(&id)
    }

    fn text(&self, id: i64) -> Option<&str> {
        if id == NO_TEXT { None } else { self.texts.get(&id).map(String::as_str) }
    }
}

/// Minutes that are part of a period, if only in part: the end of a WHERE clause with two values, Unix seconds.
const IN_PERIOD: &str = "m.start_s + 60 > ?1 AND m.start_s < ?2";

/// The values for it. A period that ends within a second has that second in it.
fn bounds(question: &Question) -> [i64; 2] {
    let until = question.until.as_millisecond();
    [question.since.as_second(), until.div_euclid(1_000) + i64::from(until.rem_euclid(1_000) > 0)]
}

/// Cuts a list, and says by how much.
fn cut<T>(list: &mut Vec<T>, length: usize) -> u64 {
    let omitted = list.len().saturating_sub(length);
    list.truncate(length);
    u64::try_from(omitted).unwrap_or(u64::MAX)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let open = |uri: &str| -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(uri, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA temp_store = MEMORY;")?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    let uri = uri(path);
    match open(&uri) {
        // Reading needs the files beside the database, made if they are not there. In a folder that may not be written, nobody
        // writes the database either: it can be read as it is. What its log holds has to be left then, so it must have none.
        Err(error)
            if matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
                && std::fs::metadata(with_suffix(path, "-wal")).map_or(true, |log| log.len() == 0) =>
        {
            open(&format!("{uri}?immutable=1"))
        }
        result => result,
    }
}

/// A path as SQLite's URIs have it.
fn uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut uri = String::from("file:");
    for &byte in absolute.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}
