package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"

	"sessiongate/client"
	"sessiongate/cmd/sessiongate/config"
	"sessiongate/oidc"
	"sessiongate/proxy"
	"sessiongate/session"
)

// edition is all that one configuration makes, and the next one makes anew. Its
// requests hold use, so that it is closed only after the last of them.
type edition struct {
	cfg     *config.Config
	handler *proxy.Gateway
	apps    []*session.App
	clients []*oidc.Client
	// byHost are the certificates by SNI; fallback is for everybody else.
	byHost   map[string]*tls.Certificate
	fallback *tls.Certificate

	use  sync.RWMutex
	stop context.CancelFunc // ends background
	work sync.WaitGroup     // background fetches of the providers' metadata
}

// newEdition builds what a configuration describes, and has the clients fetch what
// their providers say.
func (s *server) newEdition(cfg *config.Config) (*edition, error) {
	ctx, stop := context.WithCancel(context.Background())
	e, err := s.build(cfg, stop)
	if err != nil {
		return nil, err
	}
	for _, client := range e.clients {
		e.work.Go(func() { client.Run(ctx) })
	}
	return e, nil
}

// build makes an edition that does nothing yet. Sessions are shared with the edition
// in force: only after it is built for good they change, by adopt.
func (s *server) build(cfg *config.Config, stop context.CancelFunc) (*edition, error) {
	e := &edition{cfg: cfg, stop: stop, byHost: make(map[string]*tls.Certificate), fallback: cfg.TLS.Certificate}
	gateway := proxy.Config{TrustedProxies: cfg.TrustedProxies, AccessLog: cfg.Log.Access, Log: s.log, Metrics: s.proxyMetrics, Streams: s.streams, Limits: proxyLimits(cfg.Limits), Covers: e.covers}
	for _, app := range cfg.Apps {
		client, err := newClient(app, s.log)
		if err != nil {
			return nil, errors.Join(err, e.close(context.Background()))
		}
		e.clients = append(e.clients, client)
	}
	for i, app := range cfg.Apps {
		sessions, err := s.manager.NewApp(sessionConfig(cfg, app, e.clients[i]))
		if err != nil {
			return nil, errors.Join(err, e.close(context.Background()))
		}
		logins := oidc.NewEndpoints(e.clients[i], sessions, oidc.Options{
			ClientAddress: proxy.ClientAddress, Metrics: s.loginMetrics, LoginsPerMinute: cfg.Limits.LoginPerMinute, Log: s.log,
		})
		e.apps = append(e.apps, sessions)
		gateway.Apps = append(gateway.Apps, proxyApp(app, sessions, logins))
		e.addCertificate(app)
	}
	var err error
	if e.handler, err = proxy.New(gateway); err != nil {
		return nil, errors.Join(err, e.close(context.Background()))
	}
	return e, nil
}

func proxyLimits(l config.Limits) proxy.Limits {
	return proxy.Limits{BodyTimeout: l.BodyTimeout, WriteTimeout: l.WriteTimeout, Streams: l.StreamsPerSession}
}

func newClient(app config.App, log *slog.Logger) (*oidc.Client, error) {
	o := app.OIDC
	return oidc.NewClient(oidc.Config{
		Origin: app.Origin, BasePath: app.BasePath,
		Issuer: o.Issuer, DiscoveryURL: o.DiscoveryURL, CA: o.Pool,
		ClientID: o.ClientID, ClientSecret: o.ClientSecret.Reveal(), ClientAuth: o.ClientAuth, ClientKey: o.Signer, Audiences: o.Audiences,
		Scopes: o.Scopes, AuthParams: o.AuthParams, LoginParams: o.LoginParams,
		Timeout: o.Timeout, ClockSkew: o.ClockSkew, UserClaims: o.UserClaims,
		Logout: clientLogout(o.Logout),
		Log:    log.With("app", app.Origin),
	})
}

func clientLogout(l config.Logout) oidc.Logout {
	return oidc.Logout{EndSession: l.EndSession, IDTokenHint: l.IDTokenHint, Revoke: l.Revoke, After: l.After, AllowMissingExp: l.AllowMissingExp}
}

func sessionConfig(cfg *config.Config, app config.App, client *oidc.Client) session.AppConfig {
	sameSite := http.SameSiteStrictMode
	if cfg.Session.Cookie.SameSite == "lax" {
		sameSite = http.SameSiteLaxMode
	}
	return session.AppConfig{
		Origin: app.Origin, Issuer: app.OIDC.Issuer, ClientID: app.OIDC.ClientID,
		Refresher: client, RefreshAhead: app.OIDC.RefreshAhead, TokenTimeout: app.OIDC.Timeout, MaxPerUser: cfg.Session.MaxPerUser,
		KeepTokens: client.KeepTokens(),
		Cookie:     session.CookieConfig{Name: cfg.Session.Cookie.Name, SameSite: sameSite, Persistent: cfg.Session.Cookie.Persistent},
	}
}

func proxyApp(app config.App, sessions *session.App, logins *oidc.Endpoints) proxy.App {
	p := proxy.App{
		Origin: app.Origin, BasePath: app.BasePath, Sessions: sessions, Endpoints: endpoints(logins), CORSOrigins: app.CORS.Origins, ProviderHosts: app.OIDC.Logout.Hosts,
		SecurityHeaders: proxy.SecurityHeaders{
			CSP: app.SecurityHeaders.CSP, FrameAncestors: app.SecurityHeaders.FrameAncestors, HSTS: app.SecurityHeaders.HSTS,
		},
	}
	for _, r := range app.Routes {
		p.Routes = append(p.Routes, proxyRoute(r))
	}
	return p
}

// endpoints is the table of our own endpoints (DESIGN.md, section 7).
func endpoints(e *oidc.Endpoints) []proxy.Endpoint {
	return []proxy.Endpoint{
		{Method: "GET", Path: "login", Class: proxy.Navigation, Serve: e.Login},
		{Method: "GET", Path: "callback", Class: proxy.Navigation, Serve: e.Callback},
		{Method: "GET", Path: "session", Class: proxy.Script, Serve: e.Session},
		{Method: "GET", Path: "user", Class: proxy.Script, Serve: e.User},
		{Method: "GET", Path: "logout", Class: proxy.Navigation, Serve: e.Logout},
		{Method: "POST", Path: "logout", Class: proxy.Script, Serve: e.PostLogout},
		{Method: "GET", Path: "logout/continue", Class: proxy.Navigation, Serve: e.ContinueLogout},
		{Method: "GET", Path: "logout/callback", Class: proxy.Navigation, Serve: e.LogoutCallback},
		{Method: "POST", Path: "backchannel", Class: proxy.Provider, Serve: e.BackChannel},
		{Method: "GET", Path: "frontchannel", Class: proxy.Provider, Serve: e.FrontChannel},
		{Method: "GET", Path: "events", Class: proxy.Events, Serve: e.Events},
		{Method: "GET", Path: "sessions", Class: proxy.Script, Serve: e.Sessions},
		{Method: "DELETE", Path: "sessions", Class: proxy.Script, Serve: e.EndOtherSessions},
		{Method: "DELETE", Path: "sessions/{id}", Class: proxy.Script, Serve: e.EndSession},
		{Method: "GET", Path: "client.js", Class: proxy.Public, Serve: client.JS},
		{Method: "HEAD", Path: "client.js", Class: proxy.Public, Serve: client.JS},
		{Method: "GET", Path: "client.d.ts", Class: proxy.Public, Serve: client.Types},
		{Method: "HEAD", Path: "client.d.ts", Class: proxy.Public, Serve: client.Types},
	}
}

func proxyRoute(r config.Route) proxy.Route {
	p := proxy.Route{
		Path: r.Path, Upstream: r.Upstream,
		Kind: proxy.Kind(r.Kind), Auth: proxy.Auth(r.Auth), Token: proxy.Token(r.Token), CSRF: proxy.CSRF(r.CSRF),
		Methods: r.Methods, StripPrefix: r.StripPrefix,
		Headers:              proxy.Headers{Set: make(map[string]string), Remove: r.Headers.Remove},
		ResponseHeaders:      proxy.Headers{Set: r.ResponseHeaders.Set, Remove: r.ResponseHeaders.Remove},
		ForwardAuthorization: r.ForwardAuthorization, PreserveHost: r.PreserveHost,
		StreamKeepsAlive: r.StreamKeepsAlive, EndWithSession: r.EndWithSession,
		MaxBody: r.MaxBody, Timeout: r.Timeout, InsecureHTTP: r.InsecureHTTP,
		TLS: proxy.UpstreamTLS{CA: r.TLS.Pool, Certificate: r.TLS.Certificate, InsecureSkipVerify: r.TLS.InsecureSkipVerify},
	}
	for name, value := range r.Headers.Set {
		p.Headers.Set[name] = value.Reveal()
	}
	if r.Static != nil {
		p.Static = &proxy.Static{Dir: string(r.Static.Dir), Fallback: r.Static.Fallback}
	}
	return p
}

// reveal is for session.ParseKeys.
func reveal(secrets []config.Secret) []string {
	var texts []string
	for _, s := range secrets {
		texts = append(texts, s.Reveal())
	}
	return texts
}

func (e *edition) addCertificate(app config.App) {
	u, err := url.Parse(app.Origin)
	if err != nil || app.TLS.Certificate == nil {
		return
	}
	e.byHost[u.Hostname()] = app.TLS.Certificate
	if e.fallback == nil {
		e.fallback = app.TLS.Certificate
	}
}

// serve serves a request, unless the edition is being closed.
func (e *edition) serve(w http.ResponseWriter, r *http.Request, way func(*proxy.Gateway, http.ResponseWriter, *http.Request)) bool {
	if !e.use.TryRLock() {
		return false
	}
	defer e.use.RUnlock()
	way(e.handler, w, r)
	return true
}

// idle waits for the last request, or for ctx.
func (e *edition) idle(ctx context.Context) error {
	return await(ctx, e.use.Lock)
}

// close ends what the edition keeps going besides its requests. Sessions are the
// manager's.
func (e *edition) close(ctx context.Context) error {
	var errs []error
	e.stop()
	errs = append(errs, await(ctx, e.work.Wait))
	for _, client := range e.clients {
		errs = append(errs, await(ctx, client.Close))
	}
	if e.handler != nil {
		e.handler.Close()
	}
	return errors.Join(errs...)
}

// await calls what may block and returns when it did, or when ctx ends.
func await(ctx context.Context, f func()) error {
	done := make(chan struct{})
	go func() {
		f()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
