package oidc

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// keySet is the provider's published keys. It implements go-oidc's KeySet; ours
// because that one fetches for every unknown key id, and drops keys when a fetch
// fails.
type keySet struct {
	document[[]jose.JSONWebKey]
	// Unknown key ids make us ask for new keys, but not too often (CB-10, BC-11).
	// Anybody can make up logout tokens, so these must not use up what logins may
	// ask for.
	answered cooldown // for tokens that the token endpoint answered with
	unasked  cooldown // for tokens that somebody sent us
}

const (
	answeredPause = time.Second
	unaskedPause  = 2 * time.Second
)

var (
	// errSignature: the key that the token names did not sign it.
	errSignature = errors.New("oidc: the signature is wrong")
	// errUnverifiable: whether the signature is right cannot be told now.
	errUnverifiable = errors.New("oidc: the signature cannot be verified now")
)

// VerifySignature returns the payload of a token that one of the provider's keys
// signed, and that came from its token endpoint.
func (s *keySet) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(raw, signatureAlgorithms)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errSignature, err)
	}
	return s.verify(ctx, jws, &s.answered)
}

// verify returns the payload that one of the provider's keys signed. A provider
// that has new keys is asked for them (Core 1.0, section 10.1.1), as far as limit
// allows.
func (s *keySet) verify(ctx context.Context, jws *jose.JSONWebSignature, limit *cooldown) ([]byte, error) {
	keys, err := s.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnverifiable, err)
	}
	payload, failed := verifyWith(keys, jws)
	if failed == nil {
		return payload, nil
	}
	keys, newer, err := s.renew(ctx, limit)
	if err != nil { // new keys may come under an old key id, or none
		return nil, fmt.Errorf("%w: %w", errUnverifiable, err)
	}
	if !newer {
		return nil, failed
	}
	return verifyWith(keys, jws)
}

// verifyWith tries the keys that may have signed. Without one the signature is
// not wrong, but unverifiable: at a rotation a token may be here before its key.
func verifyWith(keys []jose.JSONWebKey, jws *jose.JSONWebSignature) ([]byte, error) {
	header := jws.Signatures[0].Header
	err := fmt.Errorf("%w: no published key has its key id", errUnverifiable)
	for _, key := range keys {
		if header.KeyID != "" && key.KeyID != "" && header.KeyID != key.KeyID {
			continue
		}
		// RFC 7517, section 4.4: a key that names its algorithm is for no other.
		if key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		payload, failed := jws.Verify(key)
		if failed == nil {
			return payload, nil
		}
		if header.KeyID == "" || header.KeyID == key.KeyID {
			err = errSignature
		}
	}
	return nil, err
}

// maxKeys bounds what one unknown key id costs.
const maxKeys = 64

// fetchKeys fetches the keys the metadata points at.
func (c *Client) fetchKeys(ctx context.Context) ([]jose.JSONWebKey, error) {
	md, err := c.discover(ctx)
	if err != nil {
		return nil, err
	}
	body, err := c.fetch(ctx, "key set", md.JWKSURI)
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(body)
	if err != nil {
		return nil, err
	}
	// An empty set would fail every login until the next fetch; the old keys, if
	// there are any, are the better guess.
	if len(keys) == 0 {
		return nil, errors.New("oidc: key set: there is no key in it that can verify a signature")
	}
	return keys, nil
}

// parseKeys reads a JWK Set. Keys of unknown kinds are passed over
// (RFC 7517, section 5), as are private, symmetric and weak ones.
func parseKeys(body []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("oidc: key set: the answer is no JWK Set")
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if err := key.UnmarshalJSON(raw); err != nil || !usable(key) {
			continue
		}
		if keys = append(keys, key); len(keys) == maxKeys {
			break
		}
	}
	return keys, nil
}

func usable(key jose.JSONWebKey) bool {
	if !key.Valid() || !key.IsPublic() || key.Use != "" && key.Use != "sig" {
		return false
	}
	// RFC 7518, section 3.3: 2048 bits or larger.
	if k, ok := key.Key.(*rsa.PublicKey); ok {
		return k.N.BitLen() >= 2048
	}
	return true
}
