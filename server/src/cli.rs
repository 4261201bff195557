//! The command line of `tokencached`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;

mod api_key;
mod explain;

use self::{api_key::ApiKeyCommand, explain::Explain};
use crate::{
    app::{self, App, AppError, Assembly, Opened, open_store},
    config::{self, Config, Listen},
    dev::{self, DemoUpstream, DevHome},
    hardening,
    lifecycle::{self, Shutdown},
    provider::registry::ProviderRegistry,
    store::StoreRegistry,
    time::SystemClock,
};

mod key;
mod verify;

use self::verify::Verify;

/// Obtains access tokens for a fleet, keeps them fresh and serves them over gRPC.
#[derive(Debug, Parser)]
#[command(name = "tokencached", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker.
    Serve(Serve),
    /// Say what is wrong with a configuration, all at once, and try to read its secrets.
    CheckConfig {
        /// The configuration.
        file: PathBuf,
    },
    /// Print the annotated default configuration: the reference of all options.
    DefaultConfig,
    /// Make the keys that the store is sealed with, and replace them.
    #[command(subcommand)]
    Key(key::Key),
    /// Bring the store's schema up to date, and end. `serve` does so as well.
    Migrate {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Also where that cuts off older replicas that run: they will write no more, and serve what they hold as degraded.
        #[arg(long)]
        force: bool,
    },
    /// Make, list and revoke API keys.
    ApiKey(ApiKeyCommand),
    /// Say whether somebody may do something, by which grant, or why not.
    ExplainPolicy(Explain),
    /// What was recorded of who got which token.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Find what was changed in recorded events: edited, dropped, doubled, reordered, or cut off.
    Verify(Verify),
}

#[derive(Args, Debug)]
struct Serve {
    #[command(flatten)]
    mode: Mode,
    /// Where dev mode serves everything. Loopback only.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config", default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
    /// Where dev mode serves metrics and health. Loopback only.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config", default_value = "127.0.0.1:9464")]
    metrics_listen: SocketAddr,
    /// Where the demo upstream of dev mode listens. Loopback only.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config", default_value_t = dev::default_upstream())]
    upstream_listen: SocketAddr,
    /// Let the process be traced and its core be dumped, to debug it: its memory and core files hold secrets.
    #[arg(long, env = "TOKENCACHE_ALLOW_CORE_DUMPS")]
    allow_core_dumps: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Mode {
    /// Try it out: SQLite under ./.tokencache, loopback only, no authentication, and demo upstreams.
    #[arg(long)]
    dev: bool,
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Does what the command line says.
#[must_use]
#[expect(clippy::print_stderr, reason = "a command line tells its user what went wrong")]
pub async fn run(cli: Cli) -> ExitCode {
    // Before anything secret is read. Other commands read secrets too, and nobody debugs them.
    if !matches!(&cli.command, Command::Serve(Serve { allow_core_dumps: true, .. })) {
        hardening::apply();
    }
    let result = match cli.command {
        Command::Serve(Serve { mode: Mode { config: Some(file), .. }, .. }) => serve(file).await,
        Command::Serve(options) => serve_dev(options).await,
        Command::CheckConfig { file } => check(file).await,
        Command::DefaultConfig => print(config::DEFAULT),
        Command::Key(command) => key::run(command).await,
        Command::Migrate { config, force } => migrate(config, force).await,
        Command::ApiKey(command) => api_key::run(command).await,
        Command::ExplainPolicy(question) => explain::run(question),
        Command::Audit { command: AuditCommand::Verify(verify) } => verify.run().await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tokencached: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Any error that ends the command.
type CliResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn serve(file: PathBuf) -> CliResult {
    let providers = ProviderRegistry::builtin();
    let config = Config::load(&file, &providers)?;
    let assembly = Assembly { config_file: Some(file), ..Assembly::standard(false, &providers) };
    run_until_told(App::build(config, assembly).await?).await
}

/// Dev mode: the demo upstreams, and a broker that is configured for them.
async fn serve_dev(options: Serve) -> CliResult {
    let addresses = [options.listen, options.metrics_listen, options.upstream_listen];
    if let Some(exposed) = addresses.iter().find(|address| !address.ip().is_loopback()) {
        return Err(format!("dev mode has no authentication and listens on loopback only, not on {exposed}").into());
    }
    let assembly = Assembly::standard(true, &ProviderRegistry::builtin());
    let home = assembly.rng.with(|rng| DevHome::prepare(Path::new(dev::DIRECTORY), rng)).map_err(AppError::Demo)?;
    let directory = home.path().to_owned();
    let listener = TcpListener::bind(options.upstream_listen).await.map_err(AppError::Demo)?;
    let demo = DemoUpstream::new(listener, home, Arc::clone(&assembly.clock)).map_err(AppError::Demo)?;
    let upstream = demo.address();
    let text = dev::config(options.listen, options.metrics_listen, upstream);
    let config = Config::parse("dev mode", &text, directory, &ProviderRegistry::builtin())?;
    let app = App::build(config, assembly).await?.with_demo(demo);
    let bound = |what| app.addresses().into_iter().find_map(|(name, address)| (name == what).then_some(address));
    if let (Some(Listen::Tcp(listen)), Some(Listen::Tcp(metrics))) = (bound(app::CLIENT_API), bound(app::METRICS)) {
        print(&dev::tour(listen, metrics, upstream))?;
    }
    run_until_told(app).await
}

async fn run_until_told(app: App) -> CliResult {
    let shutdown = Shutdown::default();
    let (audit, mut hangups) = (app.audit(), lifecycle::hangups()?);
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            audit.reopen();
        }
    });
    tokio::spawn(shutdown.on_signals()?);
    Ok(app.run(shutdown).await?)
}

async fn check(file: PathBuf) -> CliResult {
    let report = config::check(&file, &ProviderRegistry::builtin()).await;
    print(&format!("{report}\n"))?;
    if report.is_ok() { Ok(()) } else { Err("the configuration has problems".into()) }
}

async fn migrate(file: PathBuf, force: bool) -> CliResult {
    let config = Config::load(&file, &ProviderRegistry::builtin())?;
    let Opened { store, .. } = open_store(&config, &StoreRegistry::builtin(), Arc::new(SystemClock)).await?;
    let prepared = if force { store.prepare_by_force().await } else { store.prepare().await };
    prepared.map_err(AppError::Store)?;
    store.close().await;
    print("the schema is up to date\n")
}

fn print(text: &str) -> CliResult {
    use std::io::Write as _;
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
