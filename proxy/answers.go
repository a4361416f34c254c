package proxy

import (
	"errors"
	"net/http"
	"slices"
	"strings"
)

// modifyAnswer is called by ReverseProxy with an upstream's answer. It moves the
// header over to ours: what it leaves, ReverseProxy copies field by field.
func modifyAnswer(res *http.Response) error {
	x := exchangeOf(res.Request.Context())
	x.answer = res
	if res.StatusCode == http.StatusSwitchingProtocols {
		return x.modifyUpgrade(res)
	}
	if err := x.follow(res); err != nil {
		return err
	}
	if res.StatusCode == http.StatusNoContent {
		delete(res.Header, "Content-Length") // RFC 9110, section 8.6
	}
	from, to := res.Header, x.Header()
	for name, values := range from {
		if values = x.answerField(name, values); values != nil {
			to[name] = values
		}
	}
	if len(res.Trailer) > 0 && res.Request.ProtoMajor == 1 && res.Request.Method != http.MethodHead {
		// HTTP/1.1 has trailers behind chunks only (RFC 9112, section 7.1.2; HT-13).
		delete(to, "Content-Length")
	}
	x.fence(to)
	x.decorate(to)
	clear(from)
	if v := to["Content-Type"]; v != nil {
		from["Content-Type"] = v // ReverseProxy looks for event streams, and copies it back
		delete(to, "Content-Type")
	} else {
		to["Content-Type"] = nil // or net/http would guess one from the body (HT-13)
	}
	return nil
}

// follow makes a stream of an answer that is one, before anything of it reaches
// the browser.
func (x *exchange) follow(res *http.Response) error {
	gauge, v := x.meters.download, res.Header["Content-Type"]
	events := v != nil && isEventStream(v)
	switch {
	case x.call:
		x.answerBegan()
		x.body.ReadCloser, res.Body = res.Body, x.body
		return nil
	case events:
		gauge = x.meters.sse
	case !x.route.endsWithSession || x.session == nil:
		return nil
	}
	b, err := x.openBody(res.Body, gauge, events)
	if err != nil {
		if !isSafe(res.Request.Method) {
			x.failure = errGone // the upstream has acted: nobody must take it for not sent
		}
		return err
	}
	res.Body = b
	return nil
}

// modifyUpgrade lets a WebSocket begin that was asked for; nothing else becomes
// a tunnel (pain 49).
func (x *exchange) modifyUpgrade(res *http.Response) error {
	h := res.Header
	if !x.handshake || len(h["Upgrade"]) != 1 || !strings.EqualFold(h["Upgrade"][0], "websocket") {
		return errors.New("switches protocols unasked")
	}
	if err := x.openTunnel(res); err != nil {
		return err
	}
	removeNamed(h, h["Connection"])
	h["Connection"], h["Upgrade"] = upgradeHeader, webSocket
	for name, values := range h {
		if values = x.answerField(name, values); values == nil {
			delete(h, name)
		} else {
			h[name] = values
		}
	}
	x.decorate(h)
	x.status = res.StatusCode
	return nil
}

// answerField returns what of a field of an upstream's answer may pass.
func (x *exchange) answerField(name string, values []string) []string {
	switch name {
	case "Set-Cookie":
		return x.foreignCookies(values)
	case "Location", "Content-Location":
		if len(values) == 1 {
			return []string{x.outside(values[0])}
		}
	case "Refresh", "Link":
		return x.outsideIn(values)
	case "X-Sessiongate", // says that an answer is ours
		"Service-Worker-Allowed", "Clear-Site-Data", "Strict-Transport-Security", "Alt-Svc", "Nel": // speak for the whole origin
		return nil
	}
	if strings.HasPrefix(name, "Access-Control-") || x.session != nil && isTargeted(name) {
		return nil
	}
	return values
}

// isTargeted tells the fields for caches on the way, which overrule the
// Cache-Control that decorate makes private (RFC 9213, section 2.1).
func isTargeted(name string) bool {
	switch name {
	case "Surrogate-Control", "Edge-Control", "X-Accel-Expires":
		return true
	}
	return strings.HasSuffix(name, "-Cache-Control")
}

// decorate adds what is ours to an upstream's answer, and at last what the
// operator says.
func (x *exchange) decorate(h http.Header) {
	if x.session != nil {
		h["Cache-Control"] = privately(h["Cache-Control"])
	}
	if x.route.auth == AuthOptional && x.route.token {
		// With and without a session the upstream answers differently, and what is
		// for nobody in particular may be cached (RFC 9110, section 12.5.5).
		addVary(h, varyCookie)
	}
	x.secure(h)
	x.route.answerRules.apply(h)
}

// fence keeps an API's answers from being loaded as an image or a script of
// another site, or read as something else than they are (CSRF-09). Requests of
// that sort are refused; this holds for browsers that do not show it. An upstream
// that says more is believed.
func (x *exchange) fence(h http.Header) {
	if x.route.page || x.route.auth == AuthNone {
		return
	}
	if h["Cross-Origin-Resource-Policy"] == nil {
		h["Cross-Origin-Resource-Policy"] = sameOrigin
	}
	if h["X-Content-Type-Options"] == nil {
		h["X-Content-Type-Options"] = noSniff
	}
}

// secure adds what all answers carry: HSTS, and CORS on those of routes.
func (x *exchange) secure(h http.Header) {
	if x.app == nil {
		return
	}
	if x.app.hsts != nil && !x.plain { // RFC 6797, section 7.2
		h["Strict-Transport-Security"] = x.app.hsts
	}
	if x.ofRoute {
		x.addCORS(h)
	}
}

// ownAnswer sets the header fields of all answers that we make ourselves.
func (x *exchange) ownAnswer(h http.Header) {
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
	h["Cross-Origin-Resource-Policy"] = sameOrigin
	h["Referrer-Policy"] = noReferrer
	x.secure(h)
}

// Values that answers share.
var (
	noStore    = []string{"no-store"}
	noSniff    = []string{"nosniff"}
	sameOrigin = []string{"same-origin"}
	noReferrer = []string{"no-referrer"}
	private    = []string{"private"}

	closeConnection = []string{"close"}
)

// foreignCookies drops Set-Cookie lines that name a cookie of ours (PX-17).
func (x *exchange) foreignCookies(values []string) []string {
	kept := values[:0]
	for _, v := range values {
		if !ownsSetCookie(v, x.app.ownsSetCookie) {
			kept = append(kept, v)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return kept
}

// outside turns an address on the upstream, which browsers cannot reach and should
// not learn, into an address here (PX-08).
func (x *exchange) outside(address string) string {
	rt := x.route
	rest, ok := strings.CutPrefix(address, rt.scheme+"://"+rt.host)
	if !ok || rest != "" && rest[0] != '/' && rest[0] != '?' && rest[0] != '#' {
		return address
	}
	base := strings.TrimSuffix(rt.base, "/")
	if below, ok := strings.CutPrefix(rest, base); ok && (below == "" || below[0] == '/') {
		rest = rt.strip + below
	}
	if rest == "" || rest[0] != '/' {
		rest = "/" + rest
	}
	return x.app.origin + rest
}

// outsideIn does the same for every address in fields that hold more than that. It
// goes over them once, as they may be long.
func (x *exchange) outsideIn(values []string) []string {
	own := x.route.scheme + "://" + x.route.host
	changed := slices.Clone(values)
	for i, v := range changed {
		before, rest, found := strings.Cut(v, own)
		if !found {
			continue
		}
		var b strings.Builder
		b.WriteString(before)
		for found {
			before, rest, found = strings.Cut(rest, own)
			end := strings.IndexAny(before+">", "> \"',")
			b.WriteString(x.outside(own + before[:end]))
			b.WriteString(before[end:])
		}
		changed[i] = b.String()
	}
	return changed
}

// isEventStream tells a stream of server-sent events by its media type.
func isEventStream(contentType []string) bool {
	mediaType, _, _ := strings.Cut(contentType[0], ";")
	return strings.EqualFold(strings.TrimSpace(mediaType), "text/event-stream")
}

// privately makes a Cache-Control private: one without "public" and "s-maxage",
// and with "private" or "no-store". A cache on the way sees no Authorization,
// only a cookie, and by itself would share the answer (RFC 9111, section 3.5;
// HT-11).
func privately(values []string) []string {
	if len(values) == 0 {
		return private
	}
	var kept []string
	changed, isPrivate := false, false
	for _, line := range values {
		for directive := range splitUnquoted(line, ',') {
			directive = strings.TrimSpace(directive)
			name, _, qualified := strings.Cut(directive, "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "public", "s-maxage":
				changed = true
				continue
			case "private", "no-store":
				// private="field" hides that field only (RFC 9111, section 5.2.2.7).
				isPrivate = isPrivate || !qualified
			case "":
				continue
			}
			kept = append(kept, directive)
		}
	}
	if isPrivate && !changed {
		return values
	}
	if !isPrivate {
		kept = slices.Insert(kept, 0, "private")
	}
	return []string{strings.Join(kept, ", ")}
}
