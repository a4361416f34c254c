package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/session"
)

// check tells everything that is wrong with a configuration, or what it does.
func check(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("check", stderr)
	online := f.Bool("online", false, "ask the providers and the store, too")
	path, err := configFlag(f, args)
	if err != nil {
		return err
	}
	cfg, err := loadComplete(path)
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings() {
		fmt.Fprintf(stdout, "warning: %v\n", w)
	}
	fmt.Fprintf(stdout, "%s: ok, %s\n", path, count(len(cfg.Apps), "app"))
	for _, app := range cfg.Apps {
		summarise(stdout, app)
	}
	if *online {
		return checkOnline(ctx, cfg, stdout)
	}
	return nil
}

// noStore is there for what only needs to have one.
type noStore struct{ session.Store }

func (noStore) Sweep(context.Context, session.Limits) ([]session.Ending, error) { return nil, nil }

// checkParts builds what serve builds, as far as that needs no store and no network:
// the packages that will use the configuration may want more of it than config
// knows.
func checkParts(cfg *config.Config) error {
	s := &server{log: slog.New(slog.DiscardHandler), metrics: newMetrics(), store: noStore{}}
	s.streams, s.endStreams = context.WithCancel(context.Background())
	defer s.endStreams()
	if err := s.startSessions(cfg); err != nil {
		return err
	}
	defer s.manager.Close(context.Background())
	e, err := s.build(cfg, func() {})
	if err != nil {
		return cfg.Problem("apps", "cannot be served: "+err.Error(), "correct it")
	}
	return e.close(context.Background())
}

// summarise prints what an app does with requests, in the order of the file.
func summarise(w io.Writer, app config.App) {
	fmt.Fprintf(w, "\n%s\n  logs in at %s as %s, endpoints below %s\n", app.Origin, app.OIDC.Issuer, app.OIDC.ClientID, app.BasePath)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, r := range app.Routes {
		leads := "files in "
		if r.Static != nil {
			leads += string(r.Static.Dir)
		} else {
			leads = r.Upstream.Redacted()
		}
		fmt.Fprintf(table, "  %s\t-> %s\t%s\n", r.Path, leads, protection(r))
	}
	table.Flush()
}

func protection(r config.Route) string {
	if r.Auth == "none" {
		return "for everybody, without the session"
	}
	text := fmt.Sprintf("%s, session %s, csrf by %s", r.Kind, r.Auth, r.CSRF)
	if r.Token == "none" || r.Static != nil {
		return text + ", no token"
	}
	return text
}
