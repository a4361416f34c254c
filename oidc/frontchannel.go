package oidc

import (
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"sessiongate/session"
)

// framedPage is what a provider frames. It does not tell what happened: whoever
// guesses learns nothing (FC-02).
const framedPage = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Logout</title>\n"

// FrontChannel ends sessions for a page of the provider's that frames it (OpenID
// Connect Front-Channel Logout 1.0, section 2). No browser brings cookies along
// there, so that iss and sid are all it goes by (FC-01).
func (e *Endpoints) FrontChannel(w http.ResponseWriter, r *http.Request) error {
	noStore(w)
	if sid := e.framedSID(r); sid != "" {
		n, err := e.app.EndSID(r.Context(), sid, session.RemoteLogout{Reason: session.FrontChannel})
		if err != nil {
			e.audit(r, slog.LevelWarn, "frontchannel_logout", "a logout by a page of the provider failed", slog.Any("error", err))
		} else {
			e.audit(r, slog.LevelInfo, "frontchannel_logout", "logged out by a page of the provider", slog.Int("sessions", n))
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors "+strings.Join(e.providerOrigins(), " "))
	h.Set("Cross-Origin-Resource-Policy", "cross-origin") // or pages with an embedder policy could not frame it
	io.WriteString(w, framedPage)                         // if it fails, there is nobody left to tell
	return nil
}

// framedSID is the provider's session that a request names, "" if it does not
// name one of our provider.
func (e *Endpoints) framedSID(r *http.Request) string {
	q, err := query(r, "iss", "sid")
	if err != nil || q.Get("iss") != e.client.cfg.Issuer {
		return ""
	}
	return q.Get("sid")
}

// providerOrigins are those of the pages that may log out in a frame: where the
// issuer is and, if that is known just now, where the provider's logout is.
func (e *Endpoints) providerOrigins() []string {
	urls := []string{e.client.cfg.Issuer}
	if md, known := e.client.metadata.peek(); known {
		urls = append(urls, md.EndSessionEndpoint)
	}
	var origins []string
	for _, u := range urls {
		if o := originOf(u); o != "" && (len(origins) == 0 || origins[0] != o) {
			origins = append(origins, o)
		}
	}
	return origins
}

// originOf is the origin of a URL as it can stand in a policy, "" if it cannot.
func originOf(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || strings.ContainsAny(u.Host, " ;,'\"*") {
		return ""
	}
	return strings.ToLower(u.Scheme + "://" + u.Host)
}
