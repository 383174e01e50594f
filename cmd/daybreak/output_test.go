package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/cmd/daybreak/objectfile"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// What "get -o yaml" prints is written as files are, wherever an enum stands, and read as what it was.
func TestYAMLIsWhatFilesSay(t *testing.T) {
	monday := []v1.Weekday{v1.Weekday_WEEKDAY_MONDAY}
	for want, object := range map[string]store.Object{
		"monday": &v1.Calendar{Meta: &v1.Meta{Name: "a"}, Spec: &v1.CalendarSpec{TimeZone: "UTC", Hours: []*v1.OfficeHours{{Days: monday, Open: "08:30", Close: "24:00"}}}},
		"shut_down": &v1.Pool{Meta: &v1.Meta{Name: "a", Labels: map[string]string{"WEEKDAY_MONDAY": "WEEKDAY_MONDAY"}}, Spec: &v1.PoolSpec{
			Image: "a", Zone: "b", Desktops: 1, Calendar: "c", Claims: &v1.ClaimPolicy{Mode: v1.ClaimMode_CLAIM_MODE_DEDICATED},
			Schedule: &v1.Schedule{Spans: []*v1.TargetSpan{{Days: monday, From: "08:00", To: "09:00", Target: "1"}}},
			Idle:     &v1.IdlePolicy{Open: &v1.IdleRule{After: durationpb.New(time.Hour), Action: v1.IdleAction_IDLE_ACTION_SHUT_DOWN}}}},
		"phase: up": &v1.Host{Meta: &v1.Meta{Name: "a"}, Status: &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP}},
		"phase: 99": &v1.Host{Meta: &v1.Meta{Name: "a"}, Status: &v1.HostStatus{Phase: 99}},
	} {
		var out bytes.Buffer
		if err := printYAML(&out, object); err != nil {
			t.Fatal(err)
		}
		if kept := strings.Count(out.String(), "WEEKDAY_MONDAY"); !strings.Contains(out.String(), want) || kept != 2*len(object.GetMeta().GetLabels()) {
			t.Errorf("want %s and no enum's full name in\n%s", want, &out)
		}
		documents, err := objectfile.Parse("it", out.Bytes())
		if want == "phase: 99" {
			continue // newer than this program: shown, not read
		}
		if err != nil || len(documents) != 1 || !proto.Equal(documents[0].Object, object) {
			t.Errorf("%v: read as %v, want %v", err, documents, object)
		}
	}
}
