package config

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Warnings tells what is valid and probably unwise.
func (c *Config) Warnings() Problems {
	w := &warner{src: c.src}
	w.server(c)
	w.session(&c.Session)
	clients := make(map[[2]string]string)
	for i := range c.Apps {
		key, app := fmt.Sprintf("apps[%d]", i), &c.Apps[i]
		w.app(c, key, app)
		client := [2]string{app.OIDC.Issuer, app.OIDC.ClientID}
		if first, taken := clients[client]; taken {
			w.warn(key+".oidc.client_id", "is the client of "+first+" too", "register one client for each app: a logout of one may end the other")
		}
		clients[client] = key
	}
	w.loopbackApps(c)
	return w.src.finish(w.problems)
}

type warner struct {
	src      *source
	problems Problems
}

func (w *warner) warn(key, what, fix string) {
	w.problems = append(w.problems, w.src.problem(key, what, fix))
}

// short warns of a duration below what works in practice. None is refused:
// tests and demonstrations want them.
func (w *warner) short(key string, d, least time.Duration, fix string) {
	if d < least {
		w.warn(key, "is very short", fix)
	}
}

func (w *warner) server(c *Config) {
	w.short("shutdown_timeout", c.ShutdownTimeout, time.Second, "requests and writes under way are cut: allow 10s or more")
	w.limits(&c.Limits)
	for i, prefix := range c.TrustedProxies {
		if prefix.Bits() == 0 {
			w.warn(fmt.Sprintf("trusted_proxies[%d]", i), "believes everybody's X-Forwarded-For", "list your own proxies only")
		}
	}
	host, _, _ := net.SplitHostPort(c.Admin.Listen)
	if !isLoopback(host) {
		w.warn("admin.listen", "can be reached from other machines", "let the network keep strangers out: metrics name apps and routes")
		if c.Admin.Token != "" {
			w.warn("admin.token", "goes over the network in the clear", "listen on loopback, or use admin.socket: whoever reads the token can end everybody's sessions")
		}
	}
	if socket := string(c.Admin.Socket); socket != "" {
		if info, err := os.Stat(filepath.Dir(socket)); err != nil || !info.IsDir() {
			w.warn("admin.socket", "is in a directory that is not there", "make it for the gateway's user, or the gateway does not start")
		}
	}
	if c.Log.Level == "debug" {
		w.warn("log.level", "is debug", "use info in production")
	}
	tls := c.SpeaksTLS()
	https := slices.ContainsFunc(c.Apps, func(a App) bool { return strings.HasPrefix(a.Origin, "https:") })
	if https && !tls && len(c.TrustedProxies) == 0 {
		w.warn("trusted_proxies", "is empty, though something in front of the gateway must speak TLS",
			"list its addresses, or all clients share its address in logs and in limits.login_per_minute")
	}
}

func (w *warner) limits(l *Limits) {
	for _, row := range []struct {
		key     string
		timeout time.Duration
	}{{"limits.body_timeout", l.BodyTimeout}, {"limits.write_timeout", l.WriteTimeout}} {
		if row.timeout == 0 {
			w.warn(row.key, "is off", "one client that says and takes nothing holds a connection and one to an upstream, for ever: allow 1m")
		} else {
			w.short(row.key, row.timeout, 5*time.Second, "a phone in a tunnel is silent for longer: allow 30s or more")
		}
	}
	if l.StreamsPerSession == 0 {
		w.warn("limits.streams_per_session", "is off", "one user can open as many WebSockets as there are connections: allow 100")
	}
}

func (w *warner) session(s *Session) {
	w.short("session.idle_timeout", s.IdleTimeout, time.Minute, "users who read for a minute are logged out")
	w.short("session.lifetime", s.Lifetime, 5*time.Minute, "users have to log in all the time")
	if s.Lifetime < s.IdleTimeout {
		w.warn("session.idle_timeout", "is longer than session.lifetime", "no session can be idle for so long: make it shorter")
	}
	if s.Lifetime > 30*24*time.Hour {
		w.warn("session.lifetime", "is very long", "a stolen cookie is good for as long: stay within 30 days (720h)")
	}
	if s.Cookie.SameSite == "lax" {
		w.warn("session.cookie.same_site", "is lax", "use strict: links from other sites work with it too")
	}
	if s.Cookie.Persistent {
		w.warn("session.cookie.persistent", "keeps sessions when the browser is closed", "leave it off for shared computers")
	}
	if s.Store.Redis != nil {
		w.redis("session.store.redis", s.Store.Redis)
	}
}

func (w *warner) redis(key string, r *Redis) {
	if r.InsecurePlaintext {
		w.warn(key+".insecure_plaintext", "sends the store's password and sealed sessions over the network without TLS", "only where the network itself is encrypted: set tls")
	}
	if r.Liveness > 10*time.Second {
		w.warn(key+".liveness", "is very long", "when the network loses packets in silence, a session that ended elsewhere is served that long: stay within 10s")
	}
	w.short(key+".liveness", r.Liveness, 100*time.Millisecond, "a pause of the store or the network is an outage then, and users see 503: allow 1s")
	if r.Grace > 0 {
		w.warn(key+".grace", "lets sessions in memory go on while the store does not answer", "a logout elsewhere takes effect only that much later: leave it 0s unless an outage would do more harm")
	}
}

func (w *warner) app(c *Config, key string, app *App) {
	if len(app.Routes) == 0 {
		w.warn(key+".routes", "is empty: the app has nothing but "+app.BasePath, "add the routes of its API and its files")
	}
	if strings.HasPrefix(app.Origin, "https:") && app.SecurityHeaders.HSTS < 31536000 {
		w.warn(key+".security_headers.hsts", "is less than a year", "use 31536000 once everything is https")
	}
	pair := app.TLS.Certificate
	if pair == nil {
		pair = c.TLS.Certificate
	}
	if pair != nil && pair.Leaf.VerifyHostname(hostname(app.Origin)) != nil {
		w.warn(key+".origin", "is not a host of its certificate", "browsers will refuse it: get one for this host")
	}
	w.oidc(key+".oidc", &app.OIDC)
	for i := range app.Routes {
		w.route(fmt.Sprintf("%s.routes[%d]", key, i), &app.Routes[i])
		w.nested(key, i, app.Routes)
	}
}

// nested warns of a route within one that asks for less of the same upstream. The
// gateway refuses paths that an upstream may read as the inner route's; but the one
// that differs in its last slash is an ordinary path, and upstreams often answer
// it alike.
func (w *warner) nested(app string, i int, routes []Route) {
	inner := &routes[i]
	twin := inner.Path + "/"
	if strings.HasSuffix(inner.Path, "/") {
		twin = strings.TrimSuffix(inner.Path, "/")
	}
	if inner.Upstream == nil || twin == "" {
		return
	}
	around := -1
	for j, r := range routes {
		holds := r.Path == twin || strings.HasSuffix(r.Path, "/") && strings.HasPrefix(twin, r.Path)
		if j != i && holds && (around < 0 || len(r.Path) > len(routes[around].Path)) {
			around = j
		}
	}
	if around < 0 {
		return
	}
	if r := &routes[around]; r.Upstream != nil && r.Upstream.Scheme == inner.Upstream.Scheme && r.Upstream.Host == inner.Upstream.Host && asks(r) < asks(inner) {
		w.warn(fmt.Sprintf("%s.routes[%d].auth", app, i), fmt.Sprintf("is more than that of routes[%d], which sends %s to the same upstream", around, twin),
			"give "+twin+" a route with the same auth, or have the upstream check for itself")
	}
}

// asks orders what a route asks of visitors.
func asks(r *Route) int { return slices.Index([]string{"none", "optional", "required"}, r.Auth) }

func (w *warner) oidc(key string, o *OIDC) {
	if !slices.Contains(o.Scopes, "offline_access") {
		w.warn(key+".scopes", "lacks offline_access", "most providers give a refresh token only with it: sessions may end with the first access token")
	}
	w.short(key+".timeout", o.Timeout, time.Second, "slow answers count as outages, and a refresh may be lost: allow 5s or more")
	if o.Timeout > time.Minute {
		w.warn(key+".timeout", "is very long", "users wait that long when the provider hangs: 10s is plenty")
	}
	if o.ClockSkew > 5*time.Minute {
		w.warn(key+".clock_skew", "is very long", "set the clocks right instead: expired ID tokens are accepted that long")
	}
	if !slices.Contains(o.UserClaims, "sub") {
		w.warn(key+".user_claims", "lacks sub", "the app cannot tell users apart without it")
	}
	if !o.Logout.Revoke {
		w.warn(key+".logout.revoke", "is off", "refresh tokens stay good after a logout")
	}
	if o.Logout.AllowMissingExp {
		w.warn(key+".logout.allow_missing_exp", "accepts logout tokens that say nothing of their end", "only for a provider that sends none: OpenID Connect requires exp")
	}
}

func (w *warner) route(key string, r *Route) {
	switch {
	case r.Upstream != nil:
		w.short(key+".timeout", r.Timeout, time.Second, "ordinary answers may take longer")
		if isRemote(r.Upstream) {
			w.warn(key+".insecure_http", "sends access tokens over the network without TLS", "only where the network itself is encrypted")
		}
		if r.TLS.InsecureSkipVerify {
			w.warn(key+".tls.insecure_skip_verify", "sends access tokens to whoever answers in the upstream's place", "only to try things out: name the upstream's CA in tls.ca instead")
		}
	case r.Auth == "required" && r.Kind == "api":
		w.warn(key+".kind", "is api: visitors without a session get an error instead of the login", "set kind: page")
	}
}

// Absent tells which static files are not there. That is no fault of the
// configuration, which may be checked before the app is built, but nothing can
// be served without them.
func (c *Config) Absent() Problems {
	w := &warner{src: c.src}
	for i, app := range c.Apps {
		for j, r := range app.Routes {
			if r.Static != nil {
				w.absent(fmt.Sprintf("apps[%d].routes[%d].static", i, j), r.Static)
			}
		}
	}
	return w.src.finish(w.problems)
}

func (w *warner) absent(key string, s *Static) {
	const fix = "build the app first, or correct it"
	if info, err := os.Stat(string(s.Dir)); err != nil || !info.IsDir() {
		w.warn(key+".dir", "is not a directory that can be read", fix)
		return
	}
	if info, err := os.Stat(filepath.Join(string(s.Dir), filepath.FromSlash(s.Fallback))); err != nil || s.Fallback != "" && info.IsDir() {
		w.warn(key+".fallback", "is not a file in dir", fix)
	}
}

// loopbackApps warns of apps that differ in the port only: cookies do not know
// ports, so that they would share one (RFC 6265, section 8.5).
func (w *warner) loopbackApps(c *Config) {
	hosts := make(map[string]string)
	for i, app := range c.Apps {
		key := fmt.Sprintf("apps[%d].origin", i)
		host := hostname(app.Origin)
		if first, taken := hosts[host]; taken {
			w.warn(key, "differs from "+first+" in the port only", "use another host: browsers share cookies between ports")
		}
		hosts[host] = key
	}
}

func hostname(origin string) string {
	u, err := url.Parse(origin)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
