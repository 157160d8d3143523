//! `migrans checkpoint`: looking at a pipeline's state, moving it, setting it back.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;

use crate::clock::{self, Clock};
use crate::dataflow::checkpoint::{
    self, Checkpoint, Records, Shown, Storage, Store, destroy, export, records,
};
use crate::dataflow::run::take_over;
use crate::error::{Error, Kind, Result};
use crate::milvus::tso::Tso;
use crate::ownership::{Candidate, Term, election};
use crate::pipeline::Pipeline;
use crate::sources::CLOCK_SLACK;
use crate::sources::catalog::{CatalogSource, Standing};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what the state says: how far the target is, where reading goes on, what is in doubt, what was made. Also while
    /// the pipeline runs
    Show {
        /// The pipeline file
        pipeline: PathBuf,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write the state to one file. Also while the pipeline runs
    Export {
        /// The pipeline file
        pipeline: PathBuf,
        /// The file to make
        file: PathBuf,
    },
    /// Take the state from an exported file. What may have been sent since is in doubt then, and applied again with the same
    /// outcome
    Import {
        /// The pipeline file
        pipeline: PathBuf,
        /// The exported file
        file: PathBuf,
        /// In place of the state that is there
        #[arg(long)]
        force: bool,
    },
    /// Set the state back to an earlier time: the next run reads everything after it again and applies it again
    Rewind {
        /// The pipeline file
        pipeline: PathBuf,
        /// An RFC 3339 time or a Milvus timestamp
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        to: Tso,
    },
    /// Delete the state: the next run is a first run. The target stays as it is
    Reset {
        /// The pipeline file
        pipeline: PathBuf,
        /// Without asking
        #[arg(long)]
        yes: bool,
    },
}

fn parse_time(text: &str) -> std::result::Result<Tso, String> {
    Tso::parse(text).ok_or_else(|| {
        "expected an RFC 3339 time such as 2026-11-22T10:00:00Z, or a Milvus timestamp".to_owned()
    })
}

/// Does what the command says.
pub(super) fn checkpoint(command: Command) -> Result<()> {
    match command {
        Command::Show { pipeline, json } => show(&Pipeline::load(&pipeline)?, json),
        Command::Export { pipeline, file } => write(&Pipeline::load(&pipeline)?, &file),
        Command::Import { pipeline, file, force } => import(&Pipeline::load(&pipeline)?, &file, force),
        Command::Rewind { pipeline, to } => rewind(&Pipeline::load(&pipeline)?, to),
        Command::Reset { pipeline, yes } => reset(&Pipeline::load(&pipeline)?, yes),
    }
}

fn show(pipeline: &Pipeline, json: bool) -> Result<()> {
    let (place, records) = look(pipeline)?;
    let read = Checkpoint::from_records(&records)?;
    let mut shown = Shown::new(&read, &pipeline.source.mq, &pipeline.target.names(), clock::wall());
    checkpoint::owner(&records, pipeline, &mut shown)?;
    if json {
        let text = serde_json::to_string_pretty(&shown)
            .map_err(|cause| Error::new(Kind::Internal, "can't encode the state").caused_by(cause))?;
        println!("{text}");
    } else {
        print!("state      {place}\n{}", shown.text());
    }
    Ok(())
}

/// The state and where it is: with `[ownership]` it is in the etcd, and the state folder has only a copy.
fn look(pipeline: &Pipeline) -> Result<(String, Records)> {
    let Some((place, records)) = election::look(pipeline)? else {
        let folder = &pipeline.state_dir;
        return Ok((folder.display().to_string(), checkpoint::look(folder)?));
    };
    if records.is_empty() {
        let message = format!("there is no state in the etcd ({place})");
        return Err(Error::new(Kind::Checkpoint, message)
            .hint("has the pipeline run yet? Check [ownership] in the pipeline file"));
    }
    records::check(&records).map_err(|error| error.context(&place))?;
    Ok((place, records))
}

/// With `[ownership]`: the ownership, which nobody else may have.
fn claim(pipeline: &Pipeline) -> Result<Option<Term>> {
    Candidate::new(pipeline)?.map(|candidate| candidate.claim(pipeline)).transpose()
}

fn write(pipeline: &Pipeline, file: &Path) -> Result<()> {
    let (_, records) = look(pipeline)?;
    checkpoint::of_pipeline(&records, pipeline)?;
    export::write(&records, clock::wall(), file)?;
    let frontier = Checkpoint::from_records(&records)?.frontier.unwrap_or(Tso::ZERO);
    println!("exported {}: everything up to {frontier} is on the target", file.display());
    Ok(())
}

/// What a standby got has been passed by its ticks, and would be there twice if it got it again.
fn not_of_a_standby(pipeline: &Pipeline, what: &str) -> Result<()> {
    if !pipeline.target.is_standby() {
        return Ok(());
    }
    let message = format!(
        "the state of a pipeline with mode = \"replicate\" can't be {what}: what is sent again to a standby \
                           would be there twice"
    );
    Err(Error::new(Kind::Refused, message)
        .hint("drop the collections on the standby, reset the state, and let the pipeline copy them anew"))
}

fn import(pipeline: &Pipeline, file: &Path, force: bool) -> Result<()> {
    not_of_a_standby(pipeline, "imported")?;
    let (mut new, made) = export::read(file)?;
    checkpoint::of_pipeline(&new, pipeline).map_err(|error| error.context(file.display()))?;
    let imported = Checkpoint::from_records(&new)?;
    imported.recognise(&standing(pipeline)?).map_err(|error| error.context(file.display()))?;
    let folder = &pipeline.state_dir;
    let store = Store::open(folder)?;
    let term = claim(pipeline)?;
    let (mut storage, old): (Box<dyn Storage>, Records) = match &term {
        None => {
            let old = store.records()?;
            (Box::new(store), old)
        }
        Some(term) => {
            let (replica, old) = term.replica()?;
            (Box::new(replica), old)
        }
    };
    // With it the state is a copy of what is in an etcd, or that itself.
    new.remove(records::EPOCH);
    if let Some(term) = &term {
        records::apply(&mut new, &[records::put(records::EPOCH, &term.epoch())?]);
    }
    let is_used = !old.is_empty() && Checkpoint::from_records(&old).is_ok_and(|old| old.has_begun());
    let is_damaged = !old.is_empty() && records::check(&old).is_err();
    if (is_used || is_damaged) && !force {
        let message = match &term {
            None => format!("the state folder {} has a state already", folder.display()),
            Some(term) => format!("there is a state already: {}", term.place()),
        };
        return Err(Error::new(Kind::Checkpoint, message)
            .hint("export it first if it may be needed, then import with --force"));
    }
    // Nobody knows what was sent after the export was made, by whom, and whether those calls are over: up to now, all of
    // it is in doubt.
    let deadline = u64::try_from(pipeline.delivery.call_deadline.as_millis()).unwrap_or(u64::MAX);
    let doubted = imported.doubted(
        Tso::now().after(CLOCK_SLACK),
        Clock::go_on(imported.clock.as_ref()).unix_now().saturating_add(deadline),
    );
    checkpoint::replace(&mut *storage, &old, &new, &[doubted])?;
    let place = term.as_ref().map_or_else(|| folder.display().to_string(), Term::place);
    drop(storage);
    if let Some(term) = term {
        term.release();
    }
    println!(
        "imported {}, made {}, into {place}: the next run goes on after {}",
        file.display(),
        checkpoint::moment(made.saturating_mul(1_000_000)),
        imported.frontier.unwrap_or(Tso::ZERO)
    );
    println!(
        "what was applied since the export is applied again, with the same outcome; collections that were created since \
         are in the way, unless adopt = true"
    );
    Ok(())
}

fn standing(pipeline: &Pipeline) -> Result<Standing> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Error::new(Kind::Internal, "can't start the runtime for calls").caused_by(cause))?;
    runtime.block_on(async {
        let select = pipeline.select.clone();
        CatalogSource::connect(&pipeline.source, move |name| select.matches(name)).await?.standing().await
    })
}

fn rewind(pipeline: &Pipeline, to: Tso) -> Result<()> {
    not_of_a_standby(pipeline, "set back")?;
    let term = claim(pipeline)?;
    let (writer, state) = match &term {
        None => {
            checkpoint::exists(&pipeline.state_dir)?;
            checkpoint::open(Store::open(&pipeline.state_dir)?, pipeline)?
        }
        Some(term) => take_over(pipeline, Store::open(&pipeline.state_dir)?, term)?,
    };
    let updates = state.rewound(to)?;
    let old = state.frontier.unwrap_or(Tso::ZERO);
    writer.write(updates)?;
    drop(writer);
    if let Some(term) = term {
        term.release();
    }
    let back = Duration::from_millis(old.millis().saturating_sub(to.millis()));
    println!("rewound by {} from {old} to {to}", crate::progress::human::duration(back));
    println!(
        "the next run reads everything after that again and applies it again, as upserts and deletes: until it has come to \
         {old}, rows at the target may be as they were in between. If the queue does not hold it any more, it stops \
         with an error"
    );
    Ok(())
}

fn reset(pipeline: &Pipeline, yes: bool) -> Result<()> {
    let folder = &pipeline.state_dir;
    let term = claim(pipeline)?;
    if term.is_none() {
        checkpoint::exists(folder)?;
    }
    let lock = match Store::open(folder) {
        Ok(store) => {
            let records = store.records().unwrap_or_default();
            // What is damaged may be deleted; what is somebody else's may not.
            if records::check(&records).is_ok() {
                checkpoint::of_pipeline_named(&records, pipeline)?;
            }
            Some(store)
        }
        Err(error) if checkpoint::is_in_use(&error) => return Err(error),
        Err(error) => {
            println!("it can't be opened: {error}");
            None
        }
    };
    println!("this deletes the state of pipeline {:?} in {}", pipeline.name, folder.display());
    println!(
        "the target stays as it is: the next run begins as a first run, stops at collections that are there already, or \
         with adopt = true takes them over and writes every row anew, as upserts. What was deleted at the source \
         meanwhile stays at the target if the queue does not hold its deletion any more"
    );
    if !yes && !confirmed()? {
        return Err(Error::new(Kind::Refused, "nothing was deleted"));
    }
    if let Some(removed) = term.map(Term::remove).transpose()?.flatten() {
        println!("deleted {removed}");
    }
    drop(lock);
    destroy(folder)?;
    println!("deleted");
    Ok(())
}

fn confirmed() -> Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::new(Kind::Usage, "there is no terminal to ask on").hint("say --yes"));
    }
    print!("type yes to go on: ");
    drop(std::io::stdout().flush());
    let mut answer = String::new();
    stdin
        .read_line(&mut answer)
        .map_err(|cause| Error::new(Kind::Usage, "can't read the answer").caused_by(cause))?;
    Ok(answer.trim() == "yes")
}
