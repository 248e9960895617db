//! Opening the database to write: made if it is not there, looked through if it is, put aside if it is damaged.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::schema::{self, APPLICATION_ID, MIGRATIONS};

/// Why the history cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder or the file could not be made or looked at.
    #[error("{doing} {}", path.display())]
    File {
        /// What was tried
        doing: &'static str,
        /// With what
        path: PathBuf,
        /// Why not
        #[source]
        source: io::Error,
    },
    /// What is there is not ours to write to.
    #[error("{} is {what}: give the history another path", path.display())]
    NotOurs {
        /// The path
        path: PathBuf,
        /// What it is
        what: &'static str,
    },
    /// A newer firstfin made it.
    #[error("{} was written by a newer firstfin: its version is {found}, this one knows up to {known}", path.display())]
    Newer {
        /// The path
        path: PathBuf,
        /// Its version
        found: i64,
        /// The newest that this program knows
        known: i64,
    },
    /// It does not hold together any more.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The path
        path: PathBuf,
        /// What was found
        what: String,
    },
    /// SQLite could not do it: no room, a lock, an error of the disk.
    #[error("{doing}")]
    Sqlite {
        /// What was tried
        doing: &'static str,
        /// Why not
        #[source]
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// What a failing step of SQLite becomes.
    pub(super) fn sqlite(doing: &'static str) -> impl Fn(rusqlite::Error) -> Self {
        move |source| Self::Sqlite { doing, source }
    }

    /// What the database says is not to be trusted: it has to be looked through, and put aside.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Sqlite { source, .. } => is_damage(source),
            Self::File { .. } | Self::NotOurs { .. } | Self::Newer { .. } => false,
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Which file it is: its device and inode number.
pub(super) type FileId = (u64, u64);

pub(super) fn file_id(path: &Path) -> io::Result<FileId> {
    fs::metadata(path).map(|it| (it.dev(), it.ino()))
}

/// How long to wait for another process that writes, before the minute is kept for later.
const BUSY: Duration = Duration::from_secs(5);

/// Opens the database, or makes it.
pub(super) fn open(path: &Path) -> Result<(Connection, FileId), StoreError> {
    let file = |doing| move |source| StoreError::File { doing, path: path.to_path_buf(), source };
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|source| StoreError::File {
            doing: "make the folder",
            path: folder.to_path_buf(),
            source,
        })?;
    }
    // Names, paths and addresses of everything on the host: for its owner alone. SQLite's own files get the same mode.
    let opened = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    let opened = opened.map_err(file("open"))?;
    look_at_start(path, &opened)?;
    let id = file_id(path).map_err(file("look at"))?;
    drop(opened);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(StoreError::sqlite("open the database"))?;
    prepare(&mut connection, path).map_err(|error| match error {
        StoreError::Sqlite { source, .. } if is_damage(&source) => {
            StoreError::Damaged { path: path.to_path_buf(), what: source.to_string() }
        }
        error => error,
    })?;
    Ok((connection, id))
}

/// An empty file is a new database; any other begins as SQLite's do.
fn look_at_start(path: &Path, file: &File) -> Result<(), StoreError> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let failed = |source| StoreError::File { doing: "look at", path: path.to_path_buf(), source };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(StoreError::NotOurs { path: path.to_path_buf(), what: "no regular file" });
    }
    let mut start = Vec::new();
    file.take(16).read_to_end(&mut start).map_err(failed)?;
    if start.is_empty() || start == MAGIC {
        return Ok(());
    }
    Err(StoreError::Damaged { path: path.to_path_buf(), what: "it does not begin as a database does".to_owned() })
}

fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY).map_err(StoreError::sqlite("set how long to wait for a lock"))?;
    check_owner(connection, path)?;
    let problem: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(StoreError::sqlite("look the database through"))?;
    if problem != "ok" {
        return Err(StoreError::Damaged { path: path.to_path_buf(), what: problem });
    }
    // Takes effect before the first table only, and before the journal is WAL.
    run(connection, "PRAGMA auto_vacuum = INCREMENTAL").map_err(StoreError::sqlite("set up the database"))?;
    settings(connection).map_err(StoreError::sqlite("set up the database"))?;
    schema::migrate(connection, MIGRATIONS).map_err(StoreError::sqlite("make the tables"))?;
    let auto_vacuum: i64 = connection
        .query_row("PRAGMA auto_vacuum", [], |row| row.get(0))
        .map_err(StoreError::sqlite("set up the database"))?;
    if auto_vacuum != INCREMENTAL {
        // The agent ended between its first write and its tables: it is empty, or nearly so.
        let rebuild = "PRAGMA auto_vacuum = INCREMENTAL; VACUUM;";
        connection.execute_batch(rebuild).map_err(StoreError::sqlite("set up the database"))?;
    }
    Ok(())
}

/// What `PRAGMA auto_vacuum` says when it is INCREMENTAL.
const INCREMENTAL: i64 = 2;

fn settings(connection: &Connection) -> rusqlite::Result<()> {
    // A crash of the agent costs nothing that was committed, one of the host the last transactions; neither the database.
    run(connection, "PRAGMA journal_mode = WAL")?;
    run(connection, "PRAGMA synchronous = NORMAL")?;
    // 1 MB: enough for many minutes, and little on a small disk.
    run(connection, "PRAGMA wal_autocheckpoint = 250")?;
    run(connection, "PRAGMA journal_size_limit = 1048576")?;
    run(connection, "PRAGMA cache_size = -1024")?;
    run(connection, "PRAGMA temp_store = MEMORY")
}

/// Runs a statement to its end, whatever rows it gives. Those that free pages do so row by row.
pub(super) fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

fn check_owner(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let doing = StoreError::sqlite("read the database");
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(&doing)?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(&doing)?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(StoreError::NotOurs { path: path.to_path_buf(), what: "a database of another program" });
    }
    let (found, known) = (schema::version(connection).map_err(&doing)?, schema::newest());
    if found > known {
        return Err(StoreError::Newer { path: path.to_path_buf(), found, known });
    }
    Ok(())
}

/// How many damaged databases are kept: more of them would fill a disk that is failing.
const KEPT_ASIDE: usize = 2;

/// Renames a damaged database, and what was not yet moved into it from its log, so that somebody can look at it.
pub(super) fn set_aside(path: &Path, now: Timestamp) -> Result<PathBuf, StoreError> {
    let stamp = now.strftime("%Y%m%dT%H%M%SZ");
    let mut aside = with_suffix(path, &format!(".damaged-{stamp}"));
    for number in 1..1_000 {
        if !aside.exists() {
            break;
        }
        aside = with_suffix(path, &format!(".damaged-{stamp}-{number:03}"));
    }
    let failed = |source| StoreError::File { doing: "put aside", path: path.to_path_buf(), source };
    // The log first: with a new database under the old name it would be taken for that one's.
    for suffix in ["-wal", "-shm"] {
        match fs::rename(with_suffix(path, suffix), with_suffix(&aside, suffix)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(failed)?,
        }
    }
    fs::rename(path, &aside).map_err(failed)?;
    forget_older(path);
    Ok(aside)
}

/// What cannot be removed stays: it is in nobody's way.
fn forget_older(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return };
    let prefix = format!("{name}.damaged-");
    let Ok(entries) = fs::read_dir(folder) else { return };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut aside: Vec<_> =
        names.filter(|it| it.starts_with(&prefix) && !it.ends_with("-wal") && !it.ends_with("-shm")).collect();
    aside.sort();
    for name in aside.iter().rev().skip(KEPT_ASIDE) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(folder.join(format!("{name}{suffix}")));
        }
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
