package api

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "daybreak/proto/daybreak/v1"
)

func TestCheckUse(t *testing.T) {
	rule := func(after, grace time.Duration, action v1.IdleAction) *v1.IdleRule {
		return &v1.IdleRule{After: durationpb.New(after), Grace: durationpb.New(grace), Action: action}
	}
	const suspend, shutDown, release = v1.IdleAction_IDLE_ACTION_SUSPEND, v1.IdleAction_IDLE_ACTION_SHUT_DOWN, v1.IdleAction_IDLE_ACTION_RELEASE
	dedicated := &v1.ClaimPolicy{Mode: v1.ClaimMode_CLAIM_MODE_DEDICATED}
	never := &v1.RefreshPolicy{Mode: v1.RefreshMode_REFRESH_MODE_NEVER}
	atLogoff := &v1.RefreshPolicy{Mode: v1.RefreshMode_REFRESH_MODE_AT_LOGOFF}
	withData := &v1.Shape{DataDiskGib: 10}
	half := rule(30*time.Minute, 5*time.Minute, suspend)
	off := &v1.IdlePolicy{Open: rule(time.Hour, 0, shutDown)}
	for name, test := range map[string]struct {
		spec  *v1.PoolSpec
		field string // of the mistake; "" for none
		word  string
	}{
		"nothing":                {&v1.PoolSpec{}, "", ""},
		"open":                   {&v1.PoolSpec{Idle: &v1.IdlePolicy{Open: half}}, "", ""},
		"closed":                 {&v1.PoolSpec{Calendar: "office", Idle: &v1.IdlePolicy{Closed: half}}, "", ""},
		"closed for ever":        {&v1.PoolSpec{Idle: &v1.IdlePolicy{Closed: half}}, "spec.idle.closed", "no calendar"},
		"no rule":                {&v1.PoolSpec{Idle: &v1.IdlePolicy{KeepUsers: []string{"taro"}}}, "spec.idle", "neither"},
		"grace as long":          {&v1.PoolSpec{Idle: &v1.IdlePolicy{Open: rule(time.Hour, time.Hour, suspend)}}, "", ""},
		"grace too long":         {&v1.PoolSpec{Idle: &v1.IdlePolicy{Open: rule(time.Hour, 61*time.Minute, suspend)}}, "spec.idle.open.grace", "longer than"},
		"grace by default":       {&v1.PoolSpec{Idle: &v1.IdlePolicy{Open: &v1.IdleRule{After: durationpb.New(time.Minute), Action: suspend}}}, "", ""},
		"release":                {&v1.PoolSpec{Idle: &v1.IdlePolicy{Open: rule(time.Hour, 0, release)}}, "", ""},
		"release what is theirs": {&v1.PoolSpec{Claims: dedicated, Idle: &v1.IdlePolicy{Open: rule(time.Hour, 0, release)}}, "spec.idle.open.action", "use suspend, or"},
		"shut down":              {&v1.PoolSpec{Idle: off}, "", ""},
		"shut down what lasts":   {&v1.PoolSpec{Claims: dedicated, Refresh: never, Idle: off}, "spec.idle.open.action", "spec.shape.dataDiskGib"},
		"lasts by default":       {&v1.PoolSpec{Claims: dedicated, Idle: off}, "spec.idle.open.action", "use suspend, or"},
		"lasts beside its data":  {&v1.PoolSpec{Claims: dedicated, Idle: off, Shape: withData}, "", ""},
		"refreshed at logoff":    {&v1.PoolSpec{Claims: dedicated, Refresh: atLogoff, Idle: off}, "", ""},
		"shut down at night": {&v1.PoolSpec{Claims: dedicated, Calendar: "office", Idle: &v1.IdlePolicy{Open: half, Closed: off.Open}},
			"spec.idle.closed.action", "never"},
		"desktop":           {&v1.PoolSpec{Idle: &v1.IdlePolicy{Open: half, KeepDesktops: []string{"sales-1"}}}, "", ""},
		"another's desktop": {&v1.PoolSpec{Idle: &v1.IdlePolicy{Open: half, KeepDesktops: []string{"sales-1", "sale-2"}}}, "spec.idle.keepDesktops[1]", "sales-1"},
		"never, dedicated":  {&v1.PoolSpec{Claims: dedicated, Refresh: never}, "", ""},
		"never, floating":   {&v1.PoolSpec{Refresh: never}, "spec.refresh.mode", "first user"},
	} {
		got := checkUse("sales", test.spec)
		switch {
		case test.field == "" && len(got) > 0:
			t.Errorf("%s: %v", name, got)
		case test.field != "" && (len(got) != 1 || got[0].field != test.field || !strings.Contains(got[0].text, test.word)):
			t.Errorf("%s: %v, want %s with %q", name, got, test.field, test.word)
		}
	}
}

// A pool that comes to let its desktops last may not go on shutting them down.
func TestDesktopsThatComeToLastAreNotShutDown(t *testing.T) {
	r := newRig(t)
	r.ground()
	p := newPool("sales")
	p.Spec.Claims = &v1.ClaimPolicy{Mode: v1.ClaimMode_CLAIM_MODE_DEDICATED}
	p.Spec.Refresh = &v1.RefreshPolicy{Mode: v1.RefreshMode_REFRESH_MODE_AT_LOGOFF}
	p.Spec.Idle = &v1.IdlePolicy{Open: &v1.IdleRule{After: durationpb.New(time.Hour), Action: v1.IdleAction_IDLE_ACTION_SHUT_DOWN}}
	if _, err := r.apply(p); err != nil {
		t.Fatal(err)
	}
	p.Spec.Refresh.Mode = v1.RefreshMode_REFRESH_MODE_NEVER
	_, err := r.apply(p)
	wantCode(t, err, codes.InvalidArgument, "spec.idle.open.action", "use suspend")
	p.Spec.Shape = &v1.Shape{DataDiskGib: 4}
	if _, err := r.apply(p); err != nil {
		t.Error(err)
	}
}
