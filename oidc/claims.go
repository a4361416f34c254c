package oidc

import (
	"bytes"
	"context"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-jose/go-jose/v4/json"
)

// userInfo asks the UserInfo endpoint (Core 1.0, section 5.3). Without one there
// is nothing. What it says of another subject is not used (section 5.3.2).
func (c *Client) userInfo(ctx context.Context, accessToken, subject string) ([]byte, error) {
	md, err := c.discover(ctx)
	if err != nil || md.UserInfoEndpoint == "" {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, md.UserInfoEndpoint, nil)
	if err != nil {
		return nil, fmt.Errorf("oidc: userinfo: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+accessToken)
	a, err := c.do(req, "userinfo")
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, &callError{call: "userinfo", status: a.status}
	}
	var who struct {
		Subject string `json:"sub"`
	}
	if err := json.Unmarshal(a.body, &who); err != nil {
		return nil, errors.New("oidc: userinfo: the answer is no JSON object of claims")
	}
	if who.Subject != subject {
		return nil, errors.New("oidc: userinfo: the answer is about another subject")
	}
	return a.body, nil
}

// lacking tells whether one of the claims is not there.
func lacking(names []string, claims []byte) bool {
	found := decode(claims)
	for _, name := range names {
		if _, ok := found[name]; !ok {
			return true
		}
	}
	return false
}

// pick makes a JSON object of the named claims, in that order, each from the
// first source that has it.
func pick(names []string, sources ...[]byte) []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	decoded := make([]map[string]json.RawMessage, len(sources))
	for i, source := range sources {
		decoded[i] = decode(source)
	}
	for _, name := range names {
		for _, claims := range decoded {
			value, ok := claims[name]
			if !ok {
				continue
			}
			if b.Len() > 1 {
				b.WriteByte(',')
			}
			key, _ := stdjson.Marshal(name) // a string always can be
			b.Write(key)
			b.WriteByte(':')
			stdjson.Compact(&b, value) // parsed before, so it is JSON
			break
		}
	}
	b.WriteByte('}')
	return b.Bytes()
}

// decode returns the members of a JSON object that are not null.
func decode(object []byte) map[string]json.RawMessage {
	var members map[string]json.RawMessage
	if json.Unmarshal(object, &members) != nil {
		return nil
	}
	for name, value := range members {
		if string(value) == "null" {
			delete(members, name)
		}
	}
	return members
}

// typed is a claim as Duende.BFF's user endpoint shows it.
type typed struct {
	Type  string `json:"type"`
	Value any    `json:"value"`
}

// flatten lists the named claims of a JSON object in their order. An array
// becomes an entry for each of its elements; values keep their JSON type.
func flatten(names []string, object []byte) []typed {
	var list []typed
	claims := decode(object)
	for _, name := range names {
		value, ok := claims[name]
		if !ok {
			continue
		}
		var elements []stdjson.RawMessage
		if stdjson.Unmarshal(value, &elements) != nil {
			elements = []stdjson.RawMessage{stdjson.RawMessage(value)}
		}
		for _, element := range elements {
			list = append(list, typed{name, element})
		}
	}
	return list
}
