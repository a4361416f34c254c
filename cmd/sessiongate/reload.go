package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/session"
)

// pollInterval and the time that a reload takes stay below the five seconds of
// DESIGN.md, section 12.
const pollInterval = 2 * time.Second

// reloader puts a changed configuration in force, after SIGHUP or when a file
// changed.
type reloader struct {
	server *server
	path   string
	level  *slog.LevelVar
	seen   *watcher
	hangup <-chan os.Signal
}

// run reloads until ctx ends.
func (r *reloader) run(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.hangup:
		case <-tick.C:
			if !r.seen.changed() {
				continue
			}
		}
		r.reload()
	}
}

// reload checks the new configuration in full before anything changes.
func (r *reloader) reload() {
	s := r.server
	r.seen.look(r.path)
	cfg, err := loadComplete(r.path)
	if cfg != nil {
		// Also those of a configuration that is refused: when one of them changes it
		// may be right.
		r.seen.watch(append([]string{r.path}, cfg.Files...))
	}
	if err == nil {
		err = needsRestart(s.current.Load().cfg, cfg)
	}
	if err == nil {
		err = s.adopt(cfg)
	}
	s.refused.Store(err != nil)
	if err != nil {
		s.metrics.reloads.WithLabelValues("refused").Inc()
		s.log.Error("the new configuration is refused, the former one is in force", "event", "config_refused", "error", err.Error())
		return
	}
	setLevel(r.level, cfg.Log)
	s.metrics.reloads.WithLabelValues("ok").Inc()
	s.log.Info("the new configuration is in force", "event", "config_reloaded", "apps", len(cfg.Apps))
	logWarnings(s.log, cfg)
}

// needsRestart refuses changes of what is made once, at the start.
func needsRestart(old, now *config.Config) error {
	var errs []error
	for _, row := range append(storeRows(&old.Session.Store, &now.Session.Store), []startRow{
		{"listen", old.Listen == now.Listen},
		{"tls", old.SpeaksTLS() == now.SpeaksTLS()},
		{"tls.redirect", old.TLS.Redirect == now.TLS.Redirect},
		{"limits.header_bytes", old.Limits.HeaderBytes == now.Limits.HeaderBytes},
		{"limits.connections", old.Limits.Connections == now.Limits.Connections},
		{"limits.h2_streams", old.Limits.H2Streams == now.Limits.H2Streams},
		{"limits.sessions_in_memory", old.Limits.SessionsInMemory == now.Limits.SessionsInMemory},
		{"admin.listen", old.Admin.Listen == now.Admin.Listen},
		{"admin.socket", old.Admin.Socket == now.Admin.Socket},
		{"log.format", old.Log.Format == now.Log.Format},
	}...) {
		if !row.unchanged {
			errs = append(errs, now.Problem(row.key, "was changed, which needs a restart", "restart the gateway, or change it back"))
		}
	}
	return errors.Join(errs...)
}

// startRow is about a key that only the start reads.
type startRow struct {
	key       string
	unchanged bool
}

// storeRows are about the store: all of it but passwords and CAs, which each new
// connection asks for.
func storeRows(old, now *config.Store) []startRow {
	if old.Redis == nil || now.Redis == nil {
		return []startRow{{"session.store", *old == *now}}
	}
	o, n := old.Redis, now.Redis
	const redis = "session.store.redis."
	return []startRow{
		{redis + "addresses", slices.Equal(o.Addresses, n.Addresses)},
		{redis + "db", o.DB == n.DB},
		{redis + "tls", (o.TLS == nil) == (n.TLS == nil)},
		{redis + "sentinel.master", o.Sentinel.Master == n.Sentinel.Master},
		{redis + "cluster", o.Cluster == n.Cluster},
		{redis + "prefix", o.Prefix == n.Prefix},
		{redis + "liveness", o.Liveness == n.Liveness},
		{redis + "grace", o.Grace == n.Grace},
		{redis + "wait_replicas", o.WaitReplicas == n.WaitReplicas},
		{redis + "insecure_plaintext", o.InsecurePlaintext == n.InsecurePlaintext},
	}
}

// adopt builds an edition and puts it in the place of the one in force, whose
// requests and streams go on to their end.
func (s *server) adopt(cfg *config.Config) error {
	keys, err := session.ParseKeys(reveal(cfg.Session.Keys))
	if err != nil {
		return err
	}
	e, err := s.newEdition(cfg)
	if err != nil {
		return err
	}
	s.manager.Reconfigure(keys, cfg.Session.IdleTimeout, cfg.Session.Lifetime)
	s.writeTimeout.Store(int64(cfg.Limits.WriteTimeout))
	old := s.current.Swap(e)
	gone := old.appsNotIn(e)
	s.retiring.Go(func() {
		s.retire(gone)
		_ = old.idle(context.Background())
		_ = old.close(context.Background())
	})
	return nil
}

// appsNotIn lists the apps whose sessions are over: those that were removed, and
// those that got another origin, issuer or client.
func (e *edition) appsNotIn(next *edition) []*session.App {
	var gone []*session.App
	for _, app := range e.apps {
		kept := false
		for _, other := range next.apps {
			kept = kept || app.Same(other)
		}
		if !kept {
			gone = append(gone, app)
		}
	}
	return gone
}

// retire ends sessions, of all the apps at once: a store that is down must not have
// one wait for the other. The manager tries again what it did not take, and lets
// nobody in meanwhile, not even where the app comes back.
func (s *server) retire(apps []*session.App) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for _, app := range apps {
		all.Go(func() {
			if err := s.manager.Retire(ctx, app); err != nil {
				s.log.Error("sessions of a removed app were not ended yet", "event", "retire_failed", "error", err)
			}
		})
	}
	all.Wait()
}

// watcher notices changed files by polling, which sees through symbolic links and
// works on every file system: Kubernetes swaps a link, others write in place.
type watcher struct {
	files map[string]fingerprint
}

// fingerprint is what tells one state of a file from another.
type fingerprint struct {
	info os.FileInfo // nil: it cannot be read
}

func take(path string) fingerprint {
	info, err := os.Stat(path)
	if err != nil {
		return fingerprint{}
	}
	return fingerprint{info}
}

func (f fingerprint) same(other fingerprint) bool {
	if f.info == nil || other.info == nil {
		return f.info == other.info
	}
	return f.info.Size() == other.info.Size() && f.info.ModTime().Equal(other.info.ModTime()) && os.SameFile(f.info, other.info)
}

// look notes the present state of the watched files, and of one more.
func (w *watcher) look(path string) {
	if w.files == nil {
		w.files = make(map[string]fingerprint)
	}
	w.files[path] = fingerprint{}
	for path := range w.files {
		w.files[path] = take(path)
	}
}

// add watches more files, from their present state.
func (w *watcher) add(paths []string) {
	for _, path := range paths {
		if _, ok := w.files[path]; !ok {
			w.files[path] = take(path)
		}
	}
}

// watch watches these files and no others. It keeps the state of those that were
// watched: a change since then is still to be seen.
func (w *watcher) watch(paths []string) {
	former := w.files
	w.files = make(map[string]fingerprint)
	for _, path := range paths {
		if f, ok := former[path]; ok {
			w.files[path] = f
		}
	}
	w.add(paths)
}

// changed tells whether a file is in another state than noted.
func (w *watcher) changed() bool {
	for path, f := range w.files {
		if !f.same(take(path)) {
			return true
		}
	}
	return false
}
