package main

import (
	"context"
	"errors"
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
	if err := checkParts(cfg); err != nil {
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

// checkParts lets the packages that will use the configuration have a look, as
// far as that needs no store and no network.
func checkParts(cfg *config.Config) error {
	_, err := session.ParseKeys(reveal(cfg.Session.Keys))
	errs := []error{err}
	for _, app := range cfg.Apps {
		_, err := newClient(app, slog.New(slog.DiscardHandler))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
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
