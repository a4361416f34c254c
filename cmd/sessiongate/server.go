package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sessiongate/cmd/sessiongate/config"
	"sessiongate/oidc"
	"sessiongate/proxy"
	"sessiongate/session"
)

// server is one running gateway: the listeners, the store and the sessions, which
// stay, and the edition in force, which a reload replaces.
type server struct {
	log          *slog.Logger
	metrics      *metrics
	proxyMetrics *proxy.Metrics
	loginMetrics *oidc.Metrics

	store    session.Store
	manager  *session.Manager
	current  atomic.Pointer[edition]
	draining atomic.Bool // readyz says 503
	refused  atomic.Bool // the last reload was
	silent   atomic.Bool // the store was, when it was asked last
	retiring sync.WaitGroup
	// writeTimeout is limits.write_timeout, of all connections there are.
	writeTimeout atomic.Int64

	public, admin             *http.Server
	publicSocket, adminSocket net.Listener
	// plain answers those who come without TLS, whom front turns aside, and those who
	// come to redirectSocket; nil where the gateway speaks no TLS.
	plain          *http.Server
	front          *front
	redirectSocket net.Listener
	// local is the admin listener on a unix socket; nil without one.
	local       *http.Server
	localSocket net.Listener
	// streams ends when a shutdown ends open streams, by endStreams.
	streams    context.Context
	endStreams context.CancelFunc
	// abort ends the requests that a shutdown does not wait for any longer.
	abort context.CancelFunc
}

// newServer makes everything but serves nothing yet. On an error nothing is left
// open.
func newServer(cfg *config.Config, log *slog.Logger) (*server, error) {
	s := &server{log: log, metrics: newMetrics()}
	s.streams, s.endStreams = context.WithCancel(context.Background())
	if err := s.open(cfg); err != nil {
		s.discard()
		return nil, err
	}
	return s, nil
}

func (s *server) open(cfg *config.Config) (err error) {
	if s.adminSocket, err = net.Listen("tcp", cfg.Admin.Listen); err != nil {
		return listenError(cfg, "admin.listen", err)
	}
	socket, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return listenError(cfg, "listen", err)
	}
	s.publicSocket = newPatientListener(socket, cfg.Limits.Connections, &s.writeTimeout)
	if cfg.TLS.Redirect != "" {
		if socket, err = net.Listen("tcp", cfg.TLS.Redirect); err != nil {
			return listenError(cfg, "tls.redirect", err)
		}
		s.redirectSocket = newPatientListener(socket, cfg.Limits.Connections, &s.writeTimeout)
	}
	if s.store, err = s.openStore(cfg); err != nil {
		return err
	}
	// Whoever has the listeners and the store is alone with this configuration: a
	// socket that answers nobody is not of a process that is just starting.
	if path := string(cfg.Admin.Socket); path != "" {
		if s.localSocket, err = listenSocket(path); err != nil {
			return fmt.Errorf("admin.socket: %w; its directory has to exist, and nothing else may be in its place: see %s", err, cfg.Files[0])
		}
	}
	if err := s.startSessions(cfg); err != nil {
		return err
	}
	e, err := s.newEdition(cfg)
	if err != nil {
		return err
	}
	s.current.Store(e)
	s.writeTimeout.Store(int64(cfg.Limits.WriteTimeout))
	s.makeServers(cfg)
	return nil
}

func listenError(cfg *config.Config, key string, err error) error {
	return fmt.Errorf("%s: %w; free the address, or change %s in %s", key, err, key, cfg.Files[0])
}

func (s *server) startSessions(cfg *config.Config) error {
	keys, err := session.ParseKeys(reveal(cfg.Session.Keys))
	if err != nil {
		return err
	}
	s.manager, err = session.NewManager(session.Config{
		Store: s.store, Keys: keys, IdleTimeout: cfg.Session.IdleTimeout, Lifetime: cfg.Session.Lifetime,
		CacheSize: cfg.Limits.SessionsInMemory, Log: s.log, Registerer: s.metrics.registry,
	})
	if err != nil {
		return err
	}
	s.proxyMetrics = proxy.NewMetrics(s.metrics.registry)
	s.loginMetrics, err = oidc.NewMetrics(s.metrics.registry)
	return err
}

// discard closes what open had opened when it failed.
func (s *server) discard() {
	if s.manager != nil {
		_ = s.manager.Close(context.Background())
	}
	if s.store != nil {
		_ = s.store.Close()
	}
	for _, socket := range []net.Listener{s.publicSocket, s.redirectSocket, s.adminSocket, s.localSocket} {
		if socket != nil {
			_ = socket.Close()
		}
	}
}

// Limits against slow clients (DESIGN.md, section 12).
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
)

func (s *server) makeServers(cfg *config.Config) {
	requests, abort := context.WithCancel(context.Background())
	s.abort = abort
	s.public = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		// OPTIONS * is the gateway's to refuse, as any path that is none.
		DisableGeneralOptionsHandler: true,
		MaxHeaderBytes:               cfg.Limits.HeaderBytes,
		ErrorLog:                     slog.NewLogLogger(serverLog{s.log.Handler()}, slog.LevelInfo),
		BaseContext:                  func(net.Listener) context.Context { return requests },
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: cfg.Limits.H2Streams},
	}
	if cfg.SpeaksTLS() {
		s.public.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.certificate} // OP-09
		s.makePlain(cfg)
	} else {
		s.public.Protocols = new(http.Protocols)
		s.public.Protocols.SetHTTP1(true)
		s.public.Protocols.SetUnencryptedHTTP2(true) // of trusted proxies: the gateway refuses it to all others
	}
	host, _, _ := net.SplitHostPort(cfg.Admin.Listen)
	s.admin = s.adminServer(door{host: host})
	if s.localSocket != nil {
		s.local = s.adminServer(door{socket: true})
	}
}

func (s *server) adminServer(d door) *http.Server {
	return &http.Server{
		Handler:           s.adminHandler(d),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          s.public.ErrorLog,
	}
}

// serverLog marks what net/http says of connections: handshakes that failed,
// panics. What it quotes of bytes that came unasked, which may be the end of
// somebody's answer, is left out (OP-04).
type serverLog struct{ slog.Handler }

func (h serverLog) Handle(ctx context.Context, r slog.Record) error {
	switch {
	case strings.HasPrefix(r.Message, "http: panic"):
		r.Level = slog.LevelError
	case strings.HasPrefix(r.Message, "http: Accept error"):
		r.Level = slog.LevelWarn // no flood of handshakes that failed hides it
	}
	r.Message, _, _ = strings.Cut(r.Message, " starting with ")
	r.Add("event", "server")
	return h.Handler.Handle(ctx, r)
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.serve(w, r, (*proxy.Gateway).ServeHTTP)
}

// serve hands the request to the edition in force.
func (s *server) serve(w http.ResponseWriter, r *http.Request, way func(*proxy.Gateway, http.ResponseWriter, *http.Request)) {
	for {
		e := s.current.Load()
		if e.serve(w, r, way) {
			return
		}
		if s.current.Load() == e {
			panic(http.ErrAbortHandler) // it is the last one, and being closed
		}
		// It was replaced between Load and serve: the next one is there already.
	}
}

// certificate chooses by SNI.
func (s *server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c := s.current.Load().certificate(strings.ToLower(hello.ServerName))
	if c == nil {
		return nil, errors.New("no certificate is configured")
	}
	return c, nil
}

// run serves until ctx ends, then shuts down in order. Background work, if any,
// runs meanwhile.
func (s *server) run(ctx context.Context, ready func(publicAddr string), background func(context.Context)) error {
	failed := s.listen()
	address := s.publicSocket.Addr().String()
	addresses := []any{"listen", address, "admin", s.adminSocket.Addr().String()}
	if s.redirectSocket != nil {
		addresses = append(addresses, "redirect", s.redirectSocket.Addr().String())
	}
	s.log.Info("ready", append([]any{"event", "ready", "version", buildVersion()}, addresses...)...)
	if ready != nil {
		ready(address)
	}
	working, stop := context.WithCancel(ctx)
	defer stop()
	var work sync.WaitGroup
	if background != nil {
		work.Go(func() { background(working) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		s.log.Error("a listener failed", "event", "listener_failed", "error", err)
	}
	stop()
	work.Wait() // no reload from here on
	return errors.Join(err, s.shutdown())
}

// listen serves all listeners until they fail, or forever.
func (s *server) listen() (failed <-chan error) {
	errs := make(chan error, 5)
	if s.front == nil {
		go func() { errs <- s.public.Serve(s.publicSocket) }()
	} else {
		go s.front.run()
		go func() { errs <- s.public.ServeTLS(s.front.secure, "", "") }()
		go func() { errs <- s.plain.Serve(s.front.plain) }()
	}
	if s.redirectSocket != nil {
		go func() { errs <- s.plain.Serve(s.redirectSocket) }()
	}
	go func() { errs <- s.admin.Serve(s.adminSocket) }()
	if s.local != nil {
		go func() { errs <- s.local.Serve(s.localSocket) }()
	}
	return errs
}

// shutdown ends everything in the order of DESIGN.md, section 9, and takes no
// longer than shutdown_delay and shutdown_timeout together.
func (s *server) shutdown() error {
	e := s.current.Load()
	s.draining.Store(true)
	s.log.Info("stopping: not ready any more", "event", "stopping", "delay", e.cfg.ShutdownDelay.String(), "timeout", e.cfg.ShutdownTimeout.String())
	time.Sleep(e.cfg.ShutdownDelay)

	ctx, cancel := context.WithTimeout(context.Background(), e.cfg.ShutdownTimeout)
	defer cancel()
	// The rest is kept for what comes after: an answer that never ends must not cost
	// the writes of others.
	most, cancel := context.WithTimeout(ctx, e.cfg.ShutdownTimeout*9/10)
	defer cancel()
	errs := []error{s.finishRequests(most, e)}
	errs = append(errs, e.close(most), await(most, s.retiring.Wait))
	// Refreshes and their writes, then the last uses.
	errs = append(errs, s.manager.Close(ctx), closeStore(ctx, s.store), s.admin.Close())
	if s.local != nil {
		errs = append(errs, s.local.Close())
	}
	err := errors.Join(errs...)
	s.log.Info("stopped", "event", "stopped", "clean", err == nil)
	if err != nil {
		return fmt.Errorf("not everything could finish within shutdown_timeout: %w", err)
	}
	return nil
}

// closeStore gives a store up that does not close in time: a disk that hangs. What
// was acknowledged is on it.
func closeStore(ctx context.Context, store session.Store) error {
	closed := make(chan error, 1)
	go func() { closed <- store.Close() }()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the store does not close: %w", context.Cause(ctx))
	}
}

// finishRequests accepts nothing new, ends streams and waits for what else is
// under way. A fifth of the time is for those that have to be cut off.
func (s *server) finishRequests(ctx context.Context, e *edition) error {
	s.endStreams()
	deadline, _ := ctx.Deadline()
	patience, cancel := context.WithDeadline(ctx, time.Now().Add(time.Until(deadline)*4/5))
	defer cancel()
	if s.redirectSocket != nil {
		_ = s.redirectSocket.Close()
	}
	late := s.public.Shutdown(patience)
	if s.plain != nil {
		_ = s.plain.Close() // nothing takes long there
	}
	s.abort() // what is left took too long
	if late != nil {
		s.log.Warn("requests were cut off", "event", "stopping", "error", late)
		_ = s.public.Close()
	}
	return e.idle(ctx)
}
