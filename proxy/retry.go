package proxy

import (
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strings"
)

// renewing retries, once, a request whose access token the upstream refused:
// it may have been revoked or its key rotated while we thought it good (RFC
// 6750, section 3.1; PX-10).
type renewing struct{ next http.RoundTripper }

// RoundTrip passes the upstream's 401 on whenever there is nothing better.
// Requests with a body are not retried, as the body is gone.
func (t *renewing) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.next.RoundTrip(r)
	if err != nil || res.StatusCode != http.StatusUnauthorized || r.Body != nil && r.Body != http.NoBody {
		return res, err
	}
	x := exchangeOf(r.Context())
	if x.token == nil || !saysInvalidToken(res.Header["Www-Authenticate"]) {
		return res, nil
	}
	token, err := x.session.Renew(r.Context(), x.token)
	if err != nil {
		x.gateway.log.LogAttrs(r.Context(), slog.LevelInfo, "upstream refused a token that could not be renewed",
			slog.String("event", "token_refused"), slog.String("app", x.app.origin), slog.String("route", x.route.path),
			slog.String("session", x.session.LogID()), slog.String("request_id", x.requestID), slog.Any("error", err))
		return res, nil
	}
	io.CopyN(io.Discard, res.Body, 64<<10) // so that the connection can be used again
	res.Body.Close()

	x.token = token
	again := r.Clone(r.Context())
	again.Header = maps.Clone(r.Header) // the first request may still be being written
	again.Header["Authorization"] = token.Header
	return t.next.RoundTrip(again)
}

// saysInvalidToken looks for a Bearer challenge with error="invalid_token" (RFC
// 6750, section 3; RFC 9110, section 11.6.1).
func saysInvalidToken(challenges []string) bool {
	for _, line := range challenges {
		scheme := ""
		for param := range splitUnquoted(line, ',') {
			name, value, isParam := strings.Cut(strings.TrimSpace(param), "=")
			// A new challenge begins with its scheme and a space.
			if s, rest, ok := strings.Cut(strings.TrimSpace(name), " "); ok {
				scheme, name = s, strings.TrimSpace(rest)
			} else if !isParam {
				scheme = name
			}
			value = strings.Trim(strings.TrimSpace(value), `"`)
			if strings.EqualFold(scheme, "Bearer") && strings.EqualFold(strings.TrimSpace(name), "error") && value == "invalid_token" {
				return true
			}
		}
	}
	return false
}
