package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"sessiongate/cmd/sessiongate/config"
)

// serve runs the gateway until it is told to stop, and reloads its configuration.
func serve(ctx context.Context, args []string, _, stderr io.Writer) error {
	path, err := configFlag(newFlags("serve", stderr), args)
	if err != nil {
		return err
	}
	// A SIGHUP that comes early must not end the process.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	seen := &watcher{} // before the files are read: what changes meanwhile is seen then
	seen.look(path)
	cfg, err := loadComplete(path)
	if err != nil {
		return err
	}
	seen.add(cfg.Files)
	level := new(slog.LevelVar)
	s, err := newServer(cfg, newLogger(stderr, cfg.Log, level))
	if err != nil {
		return err
	}
	logConnections(s.log)
	logWarnings(s.log, cfg)
	r := &reloader{server: s, path: path, level: level, seen: seen, hangup: hangup}
	return s.run(ctx, nil, r.run)
}

// logWarnings is for every start and reload: what is insecure is never so silently.
func logWarnings(log *slog.Logger, cfg *config.Config) {
	for _, w := range cfg.Warnings() {
		event := "config_warning"
		if w.Insecure() {
			event = "insecure"
		}
		log.Warn("unwise configuration", "event", event, "warning", w.String())
	}
}

// logConnections gives the program's log what net/http says of connections to
// upstreams and providers: it knows the log package only.
func logConnections(to *slog.Logger) {
	log.SetFlags(0)
	log.SetOutput(slog.NewLogLogger(serverLog{to.Handler()}, slog.LevelWarn).Writer())
}

// loadComplete loads a configuration that can be served as it is.
func loadComplete(path string) (*config.Config, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return cfg, err
	}
	if absent := cfg.Absent(); len(absent) > 0 {
		return cfg, absent
	}
	return cfg, checkParts(cfg)
}

// serveConfig runs a gateway by a configuration that does not change, until ctx
// ends, and returns when all of it is closed. It calls ready once the gateway
// listens.
func serveConfig(ctx context.Context, cfg *config.Config, log *slog.Logger, ready func(publicAddr string)) error {
	s, err := newServer(cfg, log)
	if err != nil {
		return err
	}
	return s.run(ctx, ready, nil)
}

// serveText is serveConfig for the text of a configuration whose relative paths
// are below dir.
func serveText(ctx context.Context, text []byte, dir string, stderr io.Writer, ready func(publicAddr string)) error {
	cfg, err := config.Parse(filepath.Join(dir, "config.yaml"), text)
	if err != nil {
		return err
	}
	return serveConfig(ctx, cfg, newLogger(stderr, cfg.Log, new(slog.LevelVar)), ready)
}

// newLogger logs one line for each event. Secrets are kept out of it by those who
// log: nobody hands it any.
func newLogger(w io.Writer, c config.Log, level *slog.LevelVar) *slog.Logger {
	setLevel(level, c)
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(newFloodHandler(slog.NewTextHandler(w, options)))
	}
	return slog.New(newFloodHandler(slog.NewJSONHandler(w, options)))
}

func setLevel(level *slog.LevelVar, c config.Log) {
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		panic(fmt.Sprintf("log.level passed validation: %v", err))
	}
}
