package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/session"
	"sessiongate/session/boltstore"
	"sessiongate/session/redisstore"
)

const (
	bolt  = "bolt"
	redis = "redis"
)

// migration is what the flags of migrate say.
type migration struct {
	from, to, bolt, config, fromConfig string
	former, new                        *config.Config
	log                                *slog.Logger
}

// migrate moves sessions from one store to another.
func migrate(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	m, err := parseMigration(args, stderr)
	if err != nil {
		return err
	}
	if err := m.load(); err != nil {
		return err
	}
	from, err := m.openFrom(ctx)
	if err != nil {
		return err
	}
	to, err := m.open(ctx, m.to, m.new)
	if err != nil {
		return errors.Join(err, from.Close())
	}
	begun := time.Now()
	tally, err := session.Move(ctx, from, to)
	printTally(stdout, tally)
	if err := errors.Join(err, to.Close(), from.Close()); err != nil {
		return fmt.Errorf("migrate: not everything was moved: %w; what was moved is whole: do it again when that is mended", err)
	}
	fmt.Fprintf(stdout, "all of it moved, in %v\n", time.Since(begun).Round(time.Millisecond))
	return nil
}

func parseMigration(args []string, stderr io.Writer) (m migration, err error) {
	f := newFlags("migrate", stderr)
	f.StringVar(&m.from, "from", "", "the `kind` of the store that has the sessions: bolt or redis")
	f.StringVar(&m.to, "to", "", "the `kind` of the store that gets them: bolt or redis")
	f.StringVar(&m.bolt, "bolt", "", "the `path` of the bbolt file")
	f.StringVar(&m.fromConfig, "from-config", "", "from Redis to Redis: the configuration `file` that names the one with the sessions")
	if m.config, err = configFlag(f, args); err != nil {
		return m, err
	}
	for _, kind := range []string{m.from, m.to} {
		if kind != bolt && kind != redis {
			return m, f.misused("say -from bolt -to redis, or another way")
		}
	}
	switch {
	case m.from == bolt && m.to == bolt:
		return m, f.misused("a bbolt file is moved by its name: stop the gateway and use mv")
	case (m.from == bolt || m.to == bolt) && m.bolt == "":
		return m, f.misused("-bolt PATH is missing: the file that session.store.bbolt.path names")
	case m.from == redis && m.to == redis && m.fromConfig == "":
		return m, f.misused("-from-config FILE is missing: the configuration that names the Redis with the sessions")
	case m.from == redis && m.to == redis && m.bolt != "":
		return m, f.misused("-bolt takes no part in this")
	case m.fromConfig != "" && (m.from == bolt || m.to == bolt):
		return m, f.misused("-from-config is for moves from Redis to Redis")
	}
	m.log = slog.New(slog.NewTextHandler(stderr, nil))
	return m, nil
}

// load reads the configurations. It refuses to move sessions to where they are, and
// to where nobody could use them.
func (m *migration) load() (err error) {
	if m.new, err = loadRedis(m.config); err != nil || m.fromConfig == "" {
		m.former = m.new
		return err
	}
	if m.former, err = loadRedis(m.fromConfig); err != nil {
		return err
	}
	if sameSessions(m.former.Session.Store.Redis, m.new.Session.Store.Redis) {
		return usageError(fmt.Sprintf("sessiongate migrate: %s and %s name the same sessions: there is nothing to move", m.fromConfig, m.config))
	}
	former, err1 := session.ParseKeys(reveal(m.former.Session.Keys))
	keys, err2 := session.ParseKeys(reveal(m.new.Session.Keys))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if !slices.Contains(keys.MACs("tag"), former.MAC("tag")) {
		return m.new.Problem("session.keys", "lacks the first key of "+m.fromConfig, "add it: without it nobody's cookie is good for what is moved, and no logout finds it")
	}
	return nil
}

// loadRedis loads a configuration of gateways on Redis.
func loadRedis(path string) (*config.Config, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	if cfg.Session.Store.Redis == nil {
		return nil, cfg.Problem("session.store.redis", "is missing", "name the configuration of the gateways on Redis")
	}
	return cfg, nil
}

// sameSessions tells whether two configurations name the same keys of the same Redis.
// One that has another name in each is not seen.
func sameSessions(a, b *config.Redis) bool {
	return a.DB == b.DB && a.Prefix == b.Prefix && a.Cluster == b.Cluster && a.Sentinel.Master == b.Sentinel.Master &&
		slices.ContainsFunc(a.Addresses, func(address string) bool { return slices.Contains(b.Addresses, address) })
}

func (m *migration) openFrom(ctx context.Context) (session.Portable, error) {
	if m.from == redis {
		return m.open(ctx, redis, m.former)
	}
	// To open it would make it, and set it aside if it were damaged.
	before, err := os.Stat(m.bolt)
	if err != nil {
		return nil, fmt.Errorf("migrate: %w; name the file of the former session.store.bbolt.path", err)
	}
	store, err := m.open(ctx, bolt, m.former)
	if err != nil {
		return nil, err
	}
	if after, err := os.Stat(m.bolt); err != nil || !os.SameFile(before, after) {
		// The new file is empty: to move it the next time would look like a success.
		path, err2 := filepath.EvalSymlinks(m.bolt)
		if err2 == nil {
			err2 = os.Remove(path)
		}
		return nil, errors.Join(fmt.Errorf("migrate: %s could not be used and was set aside: there is nothing to move", m.bolt), err, err2, store.Close())
	}
	return store, nil
}

func (m *migration) open(ctx context.Context, kind string, cfg *config.Config) (session.Portable, error) {
	if kind == bolt {
		return boltstore.Open(m.bolt, boltstore.Options{Log: m.log})
	}
	inForce := func() *config.Redis { return cfg.Session.Store.Redis }
	store, err := redisstore.Open(redisOptions(inForce, m.log))
	if err != nil {
		return nil, err
	}
	if err := store.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("migrate: %s: %w", strings.Join(cfg.Session.Store.Redis.Addresses, ", "), err), store.Close())
	}
	return store, nil
}

func printTally(w io.Writer, t session.Tally) {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tmoved\tupdated\tthere already\tover\t")
	for _, row := range []struct {
		what  string
		fates map[session.Fate]int
	}{
		{"live sessions", t.Sessions}, {"ended sessions", t.Tombstones}, {"logout marks", t.Marks}, {"claims", t.Claims},
	} {
		f := row.fates
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t\n", row.what, f[session.FateAdded], f[session.FateRenewed]+f[session.FateEnded], f[session.FateKept], f[session.FateOver])
	}
	table.Flush()
}
