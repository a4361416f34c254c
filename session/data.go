package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Data is the sealed part of a session: whose it is, and its tokens.
type Data struct {
	Subject string
	SID     string // the provider's session id, if it told one
	Claims  []byte // a JSON object of the claims the SPA may see

	AccessToken  string
	RefreshToken string
	// IDToken is the latest verified ID token; it serves as id_token_hint.
	IDToken string
	// Unverified is the ID token of a refresh answer from the moment the answer's
	// refresh token was stored until it has been verified (RF-11). While it is
	// there the access token that came with it must not be used.
	Unverified string

	// TokenIssued is when the access token was asked for, TokenExpiry when it runs
	// out; a zero TokenExpiry means with the session.
	TokenIssued time.Time
	TokenExpiry time.Time
	// Generation counts the token answers of this session, the login's being 1.
	Generation uint64
	// Attempt is when a refresh was sent to which no answer is known. It is stored
	// before each token call, so that a second sending is known as one.
	Attempt time.Time
	// AttemptBy is the manager that made the attempt and may have its answer yet; 0
	// when it has given it up.
	AttemptBy uint64
}

// Format keeps tokens out of whatever prints Data, by any verb.
func (Data) Format(f fmt.State, _ rune) { io.WriteString(f, "session.Data{sealed}") }

// LogValue keeps tokens out of logs.
func (Data) LogValue() slog.Value { return slog.StringValue("session.Data{sealed}") }

// dataFormat is the first byte of encoded Data. A later format gets another.
// formerFormat had no AttemptBy.
const (
	dataFormat   = 3
	formerFormat = 2
)

func (d *Data) encode() []byte {
	b := make([]byte, 0, 128+len(d.Claims)+len(d.AccessToken)+len(d.RefreshToken)+len(d.IDToken)+len(d.Unverified))
	b = append(b, dataFormat)
	for _, s := range []string{d.Subject, d.SID, string(d.Claims), d.AccessToken, d.RefreshToken, d.IDToken, d.Unverified} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.AppendUvarint(b, d.Generation)
	for _, t := range []time.Time{d.TokenIssued, d.TokenExpiry, d.Attempt} {
		b = binary.AppendVarint(b, nanos(t))
	}
	return binary.AppendUvarint(b, d.AttemptBy)
}

// shifted is Data as a clock tells its times that is ahead by so much.
func (d *Data) shifted(by time.Duration) Data {
	told := *d
	for _, t := range []*time.Time{&told.TokenIssued, &told.TokenExpiry, &told.Attempt} {
		if !t.IsZero() {
			*t = t.Add(by)
		}
	}
	return told
}

var errData = errors.New("session: record of an unknown format")

func decodeData(b []byte) (*Data, error) {
	if len(b) == 0 || b[0] != dataFormat && b[0] != formerFormat {
		return nil, errData
	}
	r := reader{b: b[1:]}
	d := &Data{
		Subject: r.string(), SID: r.string(), Claims: []byte(r.string()),
		AccessToken: r.string(), RefreshToken: r.string(), IDToken: r.string(), Unverified: r.string(),
		Generation:  r.uvarint(),
		TokenIssued: r.time(), TokenExpiry: r.time(), Attempt: r.time(),
	}
	if b[0] != formerFormat {
		d.AttemptBy = r.uvarint()
	}
	if r.bad || len(r.b) != 0 {
		return nil, errData
	}
	return d, nil
}

// reader takes fields from the front of b; bad tells afterwards that one was cut
// short.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) time() time.Time {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad = true
		return time.Time{}
	}
	r.b = r.b[n:]
	if v == 0 {
		return time.Time{}
	}
	return time.Unix(0, v)
}

func (r *reader) string() string {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// nanos is t in nanoseconds since 1970, 0 for the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
