// Package proxy stands between browsers and upstreams: it finds a request's app
// and route, refuses what a foreign site may have caused, attaches the session's
// access token and forwards, so that neither side sees what only the other may.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"sessiongate/session"
)

// Config is all a Gateway serves.
type Config struct {
	Apps []App
	// TrustedProxies are the peers whose X-Forwarded-*, Forwarded, X-Request-Id
	// and traceparent are believed.
	TrustedProxies []netip.Prefix
	// AccessLog logs every request, by path without query.
	AccessLog bool
	Log       *slog.Logger // default: nothing is logged
	Metrics   *Metrics     // default: nothing is exported
	// Streams ends when open streams have to: at a shutdown. nil: never.
	Streams context.Context
	Limits  Limits
	// Covers tells whether the certificate that a client is shown who asks for
	// serverName is for host too. nil: it is not asked.
	Covers func(serverName, host string) bool
}

// Limits are those of one request or session. 0 is no limit.
type Limits struct {
	// BodyTimeout is how long a part of a request's body may take to come.
	BodyTimeout time.Duration
	// WriteTimeout is how long a client may take nothing of an answer on an HTTP/2
	// stream. Connections have their own.
	WriteTimeout time.Duration
	// Streams is how many WebSockets and event streams a session may have open.
	Streams int
}

// Gateway is the http.Handler of the public listener. It never changes: a
// reload makes a new one.
type Gateway struct {
	apps      map[string]*app // by Host, with and without the default port
	names     map[string]*app // by host name alone, nil where that is two apps
	covers    func(serverName, host string) bool
	callers   []providerHost
	trusted   []netip.Prefix
	accessLog bool
	log       *slog.Logger
	streams   context.Context
	nowhere   *meters // requests that reached no app
	routes    []*route
	patience  time.Duration // for a part of a request's body
	limits    Limits
}

// New compiles the configuration, and reports all its faults at once.
func New(c Config) (*Gateway, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	if c.Streams == nil {
		c.Streams = context.Background()
	}
	g := &Gateway{
		apps: map[string]*app{}, trusted: c.TrustedProxies, accessLog: c.AccessLog,
		log: c.Log, streams: c.Streams, nowhere: c.Metrics.meters("", ""),
		patience: c.Limits.BodyTimeout, limits: c.Limits, covers: c.Covers,
	}
	var faults []error
	for _, conf := range c.Apps {
		a, err := newApp(conf, c.Metrics, c.Log)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		g.routes = append(g.routes, a.routes...)
		for _, host := range a.hosts {
			if g.apps[host] != nil {
				faults = append(faults, errors.New("proxy: two apps at "+host))
			}
			g.apps[host] = a
		}
		faults = append(faults, g.addProviderHosts(a, conf.ProviderHosts))
	}
	g.nameApps()
	faults = append(faults, g.checkProviderHosts())
	if err := errors.Join(faults...); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// Close ends idle upstream connections and releases static directories.
// Requests under way go on.
func (g *Gateway) Close() {
	for _, rt := range g.routes {
		rt.close()
	}
}

// ServeHTTP answers one request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.begin(w, r).run(r)
}

func (x *exchange) run(r *http.Request) {
	defer x.finish(r)
	own := r.WithContext(x)
	if r.ContentLength != 0 {
		x.awaitBody(x.gateway.patience) // also what nobody asks for is read, before the connection is used again
	}
	if err := x.serve(own); err != nil {
		x.refuse(own, err)
	}
	x.done = true
}

// serve is the one way to everything that is served here: no route, no endpoint
// and no file is reached but through it, and what it refuses had no effect.
func (x *exchange) serve(r *http.Request) error {
	a := x.findApp(r)
	if a != nil {
		x.app, x.meters = a, a.unrouted
	}
	if err := x.checkHTTP2(r); err != nil {
		return err
	}
	switch {
	case r.Method == http.MethodTrace || r.Method == http.MethodConnect:
		return notAllowed(anyMethod) // they would bounce cookies back, or make a tunnel (PX-06)
	case !isToken(r.Method):
		return notAllowed(anyMethod) // over HTTP/2 it may be anything
	case a == nil:
		return noApp(r.Host)
	case x.misdirected(r):
		return errUnknownHost
	}
	if !a.isOwn(r.URL.Path) {
		x.readCORS(r.Header["Origin"]) // before all that a listed origin should learn of
	}
	path, err := canonicalPath(r)
	if err != nil {
		return err
	}
	x.path = path.raw
	if x.plain {
		return x.sendToTLS(r)
	}
	own := a.isOwn(path.match)
	x.cookie, x.cookies = session.FindCookie(r.Header, a.cookieName)
	if x.cookies > 1 && !(own && !a.class(r.Method, path.match).looksAtCookies()) {
		x.page = a.hasPages(r.Method, path) && isNavigation(r.Method, r.Header)
		return session.ErrAmbiguousCookie
	}
	if own {
		return x.serveEndpoint(r, path.match)
	}
	rt, forward := a.route(path)
	if rt == nil {
		return errNoRoute
	}
	x.route, x.meters = rt, rt.meters
	return x.serveRoute(r, forward)
}

// serveRoute answers a request for a route, given the path to forward.
func (x *exchange) serveRoute(r *http.Request, path string) error {
	rt := x.route
	if rt.page || rt.static != nil {
		x.navigation = isNavigation(r.Method, r.Header)
		x.page = rt.page && x.navigation
	}
	if x.app.misread(rt, r.Method, x.path) {
		return errReadings
	}
	if isPreflight(r) {
		return x.preflight(r)
	}
	if !rt.allows(r.Method) || rt.overrides(r.Header) {
		return notAllowed(rt.allow)
	}
	if rt.auth != AuthNone {
		if err := admitRoute(rt.csrf, r.Method, r.Header, x.app.site); err != admitted {
			return x.rejected(r, err)
		}
	}
	// A script from an upstream could become a service worker, which sees and
	// forges every answer of this origin (DESIGN.md, section 7).
	if rt.static == nil && strings.EqualFold(r.Header.Get("Service-Worker"), "script") {
		return errForbidden
	}
	if err := x.authenticate(r); err != nil {
		return err
	}
	if rt.static != nil {
		return x.serveStatic(r, rt.stripped(path))
	}
	return x.forward(r, rt.stripped(path))
}

// authenticate finds the request's session and a fresh access token, as far as
// the route asks for them.
func (x *exchange) authenticate(r *http.Request) error {
	rt := x.route
	if rt.auth == AuthNone {
		return nil
	}
	s, err := x.app.sessions.SessionOf(r, x.cookie, x.cookies)
	if err == nil {
		s.Use()
		x.session = s
		if rt.token {
			x.token, err = s.AccessToken(x)
		}
	}
	if err == nil {
		return nil
	}
	hop := x.page && errors.Is(err, session.ErrCookieWithheld)
	if rt.auth == AuthOptional && isAnonymous(err) && !hop {
		x.session, x.token = nil, nil
		return nil
	}
	return err
}

// isAnonymous tells errors that say there is no session from those that say it
// is not known whether there is one.
func isAnonymous(err error) bool {
	return errors.Is(err, session.ErrNone) || errors.Is(err, session.ErrAbsent)
}

// serveStatic answers from a directory.
func (x *exchange) serveStatic(r *http.Request, path string) error {
	x.secure(x.Header())
	x.shape = true
	return x.route.static.serve(x, r, path, x.navigation, x.route.auth != AuthNone, x.app.documents)
}

// rejected counts and logs what the CSRF rules refused (OP-05).
func (x *exchange) rejected(r *http.Request, err csrfError) error {
	x.meters.csrf(err)
	x.gateway.log.LogAttrs(x, slog.LevelInfo, "request refused",
		slog.String("event", "csrf_rejected"), slog.String("code", err.Code()),
		slog.String("app", x.app.origin), slog.String("method", r.Method), slog.String("path", x.path),
		slog.String("address", x.client), slog.String("request_id", x.requestID))
	return err
}

// findApp finds the app that a request is for; nil if there is none.
func (x *exchange) findApp(r *http.Request) *app {
	if x.plain {
		return x.gateway.plainApp(r.Host)
	}
	if a := x.gateway.app(r.Host); a != nil {
		return a
	}
	return x.gateway.appOfProvider(r)
}

// app finds the app of a Host field. No forwarded host ever selects an app.
func (g *Gateway) app(host string) *app {
	if a := g.apps[host]; a != nil {
		return a
	}
	return g.apps[strings.ToLower(host)]
}
