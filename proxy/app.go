package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"sessiongate/session"
)

// App is one single-page app at one origin.
type App struct {
	Origin          string // scheme://host[:port], lower case, without a default port
	BasePath        string // our own endpoints lie below it, and no route does
	Sessions        *session.App
	Endpoints       []Endpoint
	Routes          []Route
	SecurityHeaders SecurityHeaders
	// CORSOrigins are other origins that may call the routes with credentials.
	CORSOrigins []string
	// ProviderHosts are further Host values, "host" for any port or "host:port", by
	// which the provider's server reaches us inside the network. There POST
	// endpoints of class Provider are served, and nothing else.
	ProviderHosts []string
}

// SecurityHeaders are for pages of ours and static files.
type SecurityHeaders struct {
	CSP            string // of static files; default: DefaultCSP
	FrameAncestors string // default: 'none'
	HSTS           int    // seconds, on every answer of an https origin; 0: none
}

// app is an App compiled.
type app struct {
	origin, basePath string
	site             site
	sessions         *session.App
	cookieName       string
	ownsCookie       func(string) bool
	ownsSetCookie    func(string) bool // in any case
	hosts            []string          // Host fields that select the app
	endpoints        map[string]*endpointPath
	routes           []*route // longest path first
	unrouted         *meters  // requests that reached no route

	loginURL       string
	frameAncestors string
	documents      http.Header // further fields of static documents
	hsts           []string    // nil: none
	forwardedProto []string
	forwardedHost  []string
}

// newApp compiles an App, and reports all its faults at once.
func newApp(c App, m *Metrics, log *slog.Logger) (*app, error) {
	u, err := parseOrigin(c.Origin)
	if err != nil {
		return nil, fmt.Errorf("proxy: app %q: %w", c.Origin, err)
	}
	if c.Sessions == nil {
		return nil, fmt.Errorf("proxy: app %s: no sessions", c.Origin)
	}
	a := &app{
		origin: c.Origin, basePath: c.BasePath,
		site:     site{origin: c.Origin, listed: map[string][]string{}},
		sessions: c.Sessions, cookieName: c.Sessions.CookieName(), ownsCookie: c.Sessions.OwnsCookie,
		ownsSetCookie: ownsFolded(c.Sessions.CookieName()),
		hosts:         hostsOf(u),
		unrouted:      m.meters(c.Origin, ""), loginURL: c.BasePath + "/login",
		forwardedProto: []string{u.Scheme}, forwardedHost: []string{u.Host},
	}
	a.setHeaders(c.SecurityHeaders, u.Scheme == "https")
	faults := []error{
		a.checkBasePath(),
		a.addOrigins(c.CORSOrigins),
		a.addEndpoints(c.Endpoints, m),
		a.addRoutes(c.Routes, m, log),
	}
	if err := errors.Join(faults...); err != nil {
		for _, rt := range a.routes {
			rt.close()
		}
		return nil, fmt.Errorf("proxy: app %s: %w", c.Origin, err)
	}
	return a, nil
}

// parseOrigin accepts an origin as a browser would write it (RFC 6454, section
// 6.2), so that origins can be compared as strings. Plain http is for loopback.
func parseOrigin(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || s != u.Scheme+"://"+u.Host:
		return nil, errors.New("an origin is scheme://host or scheme://host:port and nothing else")
	case s != strings.ToLower(s) || u.Port() != "" && u.Port() == defaultPort(u.Scheme) || strings.HasSuffix(u.Host, ":"):
		return nil, errors.New("an origin is in lower case and without its scheme's default port")
	case strings.Contains(u.Host, "*"):
		return nil, errors.New("an origin has no wildcard")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, errors.New("http is for loopback origins only; use https")
	}
	return u, nil
}

func defaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// hostsOf lists the Host fields that mean this origin (RFC 9110, section 4.2.3).
func hostsOf(u *url.URL) []string {
	if u.Port() != "" {
		return []string{u.Host}
	}
	return []string{u.Host, net.JoinHostPort(u.Hostname(), defaultPort(u.Scheme))}
}

func (a *app) setHeaders(s SecurityHeaders, https bool) {
	a.frameAncestors = s.FrameAncestors
	if a.frameAncestors == "" {
		a.frameAncestors = "'none'"
	}
	csp := s.CSP
	if csp == "" {
		csp = DefaultCSP
	}
	if !strings.Contains(csp, "frame-ancestors") {
		csp = strings.TrimRight(csp, "; ") + "; frame-ancestors " + a.frameAncestors
	}
	if https && s.HSTS > 0 {
		a.hsts = []string{"max-age=" + strconv.Itoa(s.HSTS)}
	}
	a.documents = http.Header{"Content-Security-Policy": {csp}}
}

func (a *app) checkBasePath() error {
	c, err := canonicalise(a.basePath)
	if err != nil || c.match != a.basePath || strings.HasSuffix(a.basePath, "/") {
		return fmt.Errorf("base_path %q is not a plain path like /bff", a.basePath)
	}
	return nil
}

// isOwn tells whether a path is ours and never an upstream's.
func (a *app) isOwn(path string) bool {
	rest, ok := strings.CutPrefix(path, a.basePath)
	return ok && (rest == "" || rest[0] == '/')
}

func (a *app) addOrigins(origins []string) error {
	var faults []error
	for _, o := range origins {
		if _, err := parseOrigin(o); err != nil {
			faults = append(faults, fmt.Errorf("cors origin %q: %w", o, err))
			continue
		}
		if o != a.origin {
			a.site.listed[o] = []string{o}
		}
	}
	return errors.Join(faults...)
}

func (a *app) addRoutes(routes []Route, m *Metrics, log *slog.Logger) error {
	var faults []error
	seen := map[string]bool{}
	for _, c := range routes {
		rt, err := newRoute(c, a, m, log)
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("route %q: %w", c.Path, err))
			continue
		case seen[c.Path]:
			faults = append(faults, fmt.Errorf("route %q: is there twice", c.Path))
		case a.isOwn(c.Path):
			faults = append(faults, fmt.Errorf("route %q: lies below base_path %s", c.Path, a.basePath))
		}
		seen[c.Path] = true
		a.routes = append(a.routes, rt)
	}
	// Of two paths that hold the same request one is a prefix of the other.
	slices.SortStableFunc(a.routes, func(p, q *route) int { return len(q.path) - len(p.path) })
	for _, rt := range a.routes {
		rt.enclosing = slices.ContainsFunc(a.routes, func(inner *route) bool {
			return inner != rt && liesUnder(inner.loose, rt.loose) && inner.guardsFrom(rt, "")
		})
	}
	return errors.Join(faults...)
}

// route finds the route of a path, and the form of the path to forward.
func (a *app) route(path canonical) (*route, string) {
	for _, rt := range a.routes {
		if forward, ok := path.under(rt.path); ok {
			return rt, forward
		}
	}
	return nil, ""
}

// misread tells whether the upstream of a path's route could take the path for
// one of a route that asks for more, which so would be gone around (PX-05,
// CVE-2025-47952). A looser route in that one is no way through: an upstream that
// forgives less than loosely does may not see it.
func (a *app) misread(rt *route, method, path string) bool {
	if !rt.enclosing {
		return false
	}
	loose := loosely(path)
	return slices.ContainsFunc(a.routes, func(inner *route) bool {
		return liesUnder(loose, inner.loose) && !liesUnder(rt.loose, inner.loose) && inner.guardsFrom(rt, method)
	})
}

// hasPages tells whether people look at what a path answers: our endpoints for
// navigations, and routes of pages.
func (a *app) hasPages(method string, path canonical) bool {
	if a.isOwn(path.match) {
		return a.class(method, path.match) == Navigation
	}
	rt, _ := a.route(path)
	return rt != nil && rt.page
}
