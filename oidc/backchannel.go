package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"time"

	"sessiongate/session"
)

// maxLogoutBody bounds a request with a logout token.
const maxLogoutBody = 64 << 10

// BackChannel ends sessions for the provider's server (OpenID Connect Back-Channel
// Logout 1.0). There is neither cookie nor CSRF header: the token says it all. The
// answers are the protocol's own (section 2.8), so that there is never an error.
func (e *Endpoints) BackChannel(w http.ResponseWriter, r *http.Request) error {
	noStore(w)
	n, err := e.backChannel(w, r)
	if err != nil {
		e.refuseBackChannel(w, r, err)
		return nil
	}
	e.audit(r, slog.LevelInfo, "backchannel_logout", "logged out by the provider", slog.Int("sessions", n))
	w.WriteHeader(http.StatusOK)
	return nil
}

func (e *Endpoints) backChannel(w http.ResponseWriter, r *http.Request) (sessions int, err error) {
	raw, err := readLogoutRequest(w, r)
	if err != nil {
		return 0, err
	}
	token, err := e.client.verifyLogout(r.Context(), raw)
	if err != nil {
		return 0, err
	}
	return e.endFor(r.Context(), token)
}

// readLogoutRequest takes the logout token out of a request (section 2.5). Other
// parameters are nobody's business.
func readLogoutRequest(w http.ResponseWriter, r *http.Request) (string, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return "", flaw("the request is no application/x-www-form-urlencoded")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLogoutBody))
	if err != nil {
		return "", flaw("the request is too large, or broke off")
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return "", flaw("the request is malformed")
	}
	if tokens := form["logout_token"]; len(tokens) == 1 && tokens[0] != "" {
		return tokens[0], nil
	}
	return "", flaw("the request needs one logout_token")
}

// endFor ends the sessions a logout token is about (section 2.7): those of sid
// alone, or else all of the user's. Logins that began later than it was issued are
// spared, so that it does no harm to send it again (BC-06).
func (e *Endpoints) endFor(ctx context.Context, token *logoutToken) (int, error) {
	// A provider's clock may run ahead of ours.
	issued := token.issued
	if now := time.Now(); now.Before(issued) {
		issued = now
	}
	logout := session.RemoteLogout{
		Reason: session.BackChannel,
		// iat counts whole seconds: what began in the same one may have been meant.
		BeganBefore: issued.Truncate(time.Second).Add(time.Second),
	}
	if token.sid != "" {
		return e.app.EndSID(ctx, token.sid, logout)
	}
	return e.app.EndSubject(ctx, token.subject, logout)
}

// KeepTokens tells whether a back-channel logout leaves refresh tokens to run out:
// those of offline_access are for when the user is not there (section 2.7).
func (c *Client) KeepTokens() bool { return slices.Contains(c.cfg.Scopes, "offline_access") }

// logoutFailure is the body of a 400 (section 2.8).
type logoutFailure struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

// refuseBackChannel answers 400 whatever the reason is: that is what tells a
// provider that nobody was logged out (BC-08).
func (e *Endpoints) refuseBackChannel(w http.ResponseWriter, r *http.Request, err error) {
	failure := logoutFailure{"invalid_request", "the logout token is not valid"}
	var bad flaw
	var down *session.StoreError
	switch {
	case errors.As(err, &down):
		failure = logoutFailure{"temporarily_unavailable", "sessions cannot be ended just now"}
	case errors.Is(err, errUnverifiable):
		failure = logoutFailure{"temporarily_unavailable", "the signature cannot be verified now"}
	case errors.Is(err, errSignature):
		failure.Description = "the signature is wrong"
	case errors.As(err, &bad):
		failure.Description = string(bad)
	}
	e.audit(r, slog.LevelWarn, "backchannel_logout", "a logout by the provider failed",
		slog.String("reason", failure.Error), slog.String("error", foreign(err.Error())), slog.String("address", e.address(r)))
	b, _ := json.Marshal(failure) // strings always can be
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusBadRequest)
	w.Write(append(b, '\n')) // if it fails, there is nobody left to tell
}
