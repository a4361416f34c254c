package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/session/boltstore"
	"sessiongate/session/redisstore"
)

// onlineCheck prints what became of asking others, a line for each finding.
type onlineCheck struct {
	w     io.Writer
	wrong int
}

func (c *onlineCheck) good(about, what string) { fmt.Fprintf(c.w, "ok: %s: %s\n", about, what) }

func (c *onlineCheck) warn(about, what, fix string) {
	fmt.Fprintf(c.w, "warning: %s: %s; %s\n", about, what, fix)
}

func (c *onlineCheck) fail(about, what, fix string) {
	c.wrong++
	fmt.Fprintf(c.w, "WRONG: %s: %s; %s\n", about, what, fix)
}

// checkOnline asks the providers and the store. It fails if one of them is down or
// not as it should be.
func checkOnline(ctx context.Context, cfg *config.Config, w io.Writer) error {
	fmt.Fprintln(w)
	c := &onlineCheck{w: w}
	c.providers(ctx, cfg)
	if cfg.Session.Store.Redis != nil {
		c.redis(ctx, cfg.Session.Store.Redis)
	} else {
		c.bolt(string(cfg.Session.Store.Bbolt.Path))
	}
	switch c.wrong {
	case 0:
		return nil
	case 1:
		return errors.New("check: 1 thing that the gateway needs is down or wrong")
	}
	return fmt.Errorf("check: %d things that the gateway needs are down or wrong", c.wrong)
}

// asked is what a provider says to an app's client.
type asked struct {
	keys    int
	lacking []string
	err     error
}

func (c *onlineCheck) providers(ctx context.Context, cfg *config.Config) {
	answers := make([]asked, len(cfg.Apps))
	var all sync.WaitGroup
	for i, app := range cfg.Apps { // at once: each may take as long as its time-out
		all.Go(func() { answers[i] = askProvider(ctx, app) })
	}
	all.Wait()
	for i, app := range cfg.Apps {
		about, a := fmt.Sprintf("apps[%d].oidc", i), answers[i]
		if a.err != nil {
			c.fail(about, a.err.Error(), "start the provider, or correct issuer, discovery_url or ca")
			continue
		}
		c.good(about, fmt.Sprintf("%s answers, with %s", app.OIDC.Issuer, count(a.keys, "key")))
		for _, what := range a.lacking {
			c.warn(about, what, "set it as the provider has it, or configure the provider")
		}
	}
}

func askProvider(ctx context.Context, app config.App) (a asked) {
	client, err := newClient(app, slog.New(slog.DiscardHandler))
	if err != nil {
		return asked{err: err}
	}
	defer client.Close()
	a.keys, a.lacking, a.err = client.Check(ctx)
	return a
}

func (c *onlineCheck) redis(ctx context.Context, r *config.Redis) {
	const about = "session.store.redis"
	store, err := redisstore.Open(redisOptions(func() *config.Redis { return r }, slog.New(slog.DiscardHandler)))
	if err != nil {
		c.fail(about, err.Error(), "correct it")
		return
	}
	defer store.Close()
	for _, f := range store.Inspect(ctx) {
		switch f.Grade {
		case redisstore.Good:
			c.good(about, f.What)
		case redisstore.Unwise:
			c.warn(about, f.What, f.Fix)
		default:
			c.fail(about, strings.TrimPrefix(f.What, "redisstore: "), f.Fix)
		}
	}
}

func (c *onlineCheck) bolt(path string) {
	const about = "session.store.bbolt"
	place, err := boltstore.Inspect(path)
	switch {
	case err != nil:
		c.fail(about, err.Error(), "let the gateway's user read and write there, or change path")
	case place.Held:
		c.good(about, path+" is open in another process, a running gateway most likely: it was left alone")
	case place.Exists:
		c.good(about, path+" can be opened, and its directory written to")
	default:
		c.good(about, path+" does not exist yet, and can be made")
	}
}
