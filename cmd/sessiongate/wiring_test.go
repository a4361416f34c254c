package main

import (
	"reflect"
	"testing"

	"sessiongate/cmd/sessiongate/config"
)

// A switch of a route that is not handed on does nothing, and nothing else would
// tell.
func TestEverySwitchOfARouteIsHandedOn(t *testing.T) {
	t.Parallel()
	switches := 0
	for i := range reflect.TypeFor[config.Route]().NumField() {
		field := reflect.TypeFor[config.Route]().Field(i)
		if field.Type.Kind() != reflect.Bool {
			continue
		}
		switches++
		var r config.Route
		reflect.ValueOf(&r).Elem().Field(i).SetBool(true)
		if got := reflect.ValueOf(proxyRoute(r)).FieldByName(field.Name); !got.IsValid() || !got.Bool() {
			t.Errorf("%s is not handed on", field.Name)
		}
	}
	if switches < 5 {
		t.Errorf("%d switches were looked at, want forward_authorization, preserve_host, stream_keeps_alive, end_with_session, insecure_http", switches)
	}
}
