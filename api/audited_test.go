package api

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"daybreak/api/audit"
	v1 "daybreak/proto/daybreak/v1"
)

// audited reads the audit log back.
func (r *rig) audited() []audit.Record {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, "audit.log"))
	if err != nil {
		r.t.Fatal(err)
	}
	var records []audit.Record
	for _, line := range bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n")) {
		var record audit.Record
		if len(line) == 0 {
			continue
		}
		if err := json.Unmarshal(line, &record); err != nil {
			r.t.Fatalf("%q: %v", line, err)
		}
		records = append(records, record)
	}
	return records
}

func TestAudit(t *testing.T) {
	r := newRig(t)
	client := r.objects()
	for _, step := range []struct {
		object *v1.Object
		want   [2]audit.Record
	}{
		{wrap(zone("lgwan")), [2]audit.Record{
			{Phase: "intent", Who: "user/someone", Method: "ObjectService/Apply", Object: "zone/lgwan"},
			{Phase: "result", Who: "user/someone", Method: "ObjectService/Apply", Object: "zone/lgwan", Code: "OK"},
		}},
		{wrap(newPool("sales")), [2]audit.Record{
			{Phase: "intent", Who: "user/someone", Method: "ObjectService/Apply", Object: "pool/sales"},
			{Phase: "result", Who: "user/someone", Method: "ObjectService/Apply", Object: "pool/sales", Code: "FailedPrecondition",
				Error: `spec.image: image "micro" does not exist: import it first with "daybreak image import micro FILE"`},
		}},
	} {
		before := len(r.audited())
		_, _ = client.Apply(t.Context(), &v1.ApplyRequest{Object: step.object})
		records := r.audited()[before:]
		if len(records) != 2 || records[0].Call != records[1].Call || records[0].From == "" {
			t.Fatalf("audit: %+v", records)
		}
		for i := range records {
			records[i].Time, records[i].Call, records[i].From = time.Time{}, "", ""
		}
		wantSame(t, records, step.want[:])
	}
	before := len(r.audited())
	if _, err := client.List(t.Context(), &v1.ListRequest{Kind: v1.Kind_KIND_ZONE}); err != nil {
		t.Fatal(err)
	}
	if after := len(r.audited()); after != before {
		t.Error("looking was audited")
	}
}

// TestNoAuditNoChange: when the log cannot be written, nothing is changed.
func TestNoAuditNoChange(t *testing.T) {
	r := newRig(t)
	path := filepath.Join(r.dir, "audit.log")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := r.apply(zone("lgwan"))
	wantCode(t, err, codes.Unavailable, "audit log")
	_, err = r.objects().Get(t.Context(), &v1.GetRequest{Kind: v1.Kind_KIND_ZONE, Name: "lgwan"})
	wantCode(t, err, codes.NotFound)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := r.apply(zone("lgwan")); err != nil {
		t.Error(err)
	}
}

// TestAuditLinesCannotBeForged: what a caller writes stays inside its line, and short.
func TestAuditLinesCannotBeForged(t *testing.T) {
	r := newRig(t, withAll(t))
	_, err := v1.NewClaimServiceClient(r.as(v1.Role_ROLE_OPERATOR)).Claim(t.Context(), &v1.ClaimRequest{Pool: "x\n{\"phase\":\"result\"}", User: "佐藤"})
	if err != nil {
		t.Fatal(err)
	}
	object, note := about(&v1.ClaimRequest{Pool: strings.Repeat("あ", 400), User: "佐藤"})
	if note != "user: 佐藤" || len(bounded(object)) > maxAuditText {
		t.Errorf("%q %q", bounded(object), note)
	}
	if records := r.audited(); len(records) != 2 || records[0].Call == "" || records[1].Call == "" {
		t.Errorf("forged: %+v", records)
	}
}
