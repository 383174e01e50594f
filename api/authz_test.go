package api

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	v1 "daybreak/proto/daybreak/v1"
)

// methods lists what a server has, as full names.
func methods(servers ...*grpc.Server) []string {
	var names []string
	for _, server := range servers {
		for service, info := range server.GetServiceInfo() {
			for _, method := range info.Methods {
				names = append(names, "/"+service+"/"+method.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// TestEveryMethodHasARule: none was forgotten, and no rule is for a method that is gone.
func TestEveryMethodHasARule(t *testing.T) {
	r := newRig(t, withAll(t))
	rules := newRules()
	have := methods(r.server.people, r.server.agents)
	for _, method := range have {
		if rule, ok := rules[method]; !ok || len(rule.roles) == 0 {
			t.Errorf("%s has no rule: nobody can call it", method)
		}
	}
	for method := range rules {
		if !slices.Contains(have, method) {
			t.Errorf("%s has a rule and does not exist", method)
		}
	}
}

// TestListeners: agents find nothing of people's on their listener, nor people of agents'.
func TestListeners(t *testing.T) {
	r := newRig(t, withAll(t))
	for _, method := range methods(r.server.people) {
		if strings.Contains(method, "AgentService") {
			t.Errorf("people's listener has %s", method)
		}
	}
	for _, method := range methods(r.server.agents) {
		if !strings.Contains(method, "AgentService") && !strings.Contains(method, "EnrolService") && !strings.Contains(method, "grpc.health") {
			t.Errorf("agents' listener has %s", method)
		}
	}
}

// TestRoles is the table of who may what, said a second time and by other means.
func TestRoles(t *testing.T) {
	letters := map[byte]v1.Role{'H': v1.Role_ROLE_HOST, 'A': v1.Role_ROLE_ADMIN, 'O': v1.Role_ROLE_OPERATOR, 'V': v1.Role_ROLE_VIEWER}
	want := map[string]string{
		"ObjectService/Get": "AOV", "ObjectService/List": "AOV", "ObjectService/Watch": "AOV", "ObjectService/Apply": "A", "ObjectService/Delete": "A",
		"ClaimService/Claim": "AO", "ClaimService/Release": "AO", "DesktopService/Explain": "AOV", "DesktopService/Screenshot": "AO",
		"ImageService/MissingChunks": "A", "ImageService/PutChunks": "A", "ImageService/CreateVersion": "A", "ImageService/Publish": "A",
		"ImageService/Build": "A", "ImageService/Seal": "A", "ImageService/Retire": "A", "ImageService/CollectGarbage": "A",
		"ImageService/Usage": "AOV", "ImageService/Diff": "AOV", "ImageService/GetManifest": "A", "ImageService/GetChunks": "A",
		"RolloutService/Start": "A", "RolloutService/RollBack": "A", "RolloutService/Pause": "A", "RolloutService/Resume": "A",
		"ClaimService/Defer": "AO", "ClaimService/Wait": "AO", "ClaimService/Keep": "AO", "PlanService/Plan": "AOV",
		"AdminService/CreateToken": "A", "AdminService/DrainHost": "A", "AdminService/Info": "AOV",
		"EnrolService/Enrol": "HAOV", "EnrolService/Renew": "HAOV",
		"AgentService/Watch": "H", "AgentService/Report": "H", "AgentService/Answer": "H", "AgentService/GetManifest": "H", "AgentService/GetChunks": "H",
		"AgentService/Build": "H", "AgentService/MissingChunks": "H", "AgentService/PutChunks": "H", "AgentService/FindPeers": "H",
	}
	rules := newRules()
	for method, roles := range want {
		rule := rules["/daybreak.v1."+method]
		for letter, role := range letters {
			may := strings.ContainsRune(roles, rune(letter))
			if err := rule.allow(role, method); (err == nil) != may {
				t.Errorf("%s by %v: %v", method, role, err)
			}
		}
		if rule.nobody != (method == "EnrolService/Enrol") {
			t.Errorf("%s without a certificate: %v", method, rule.nobody)
		}
	}
	for method := range rules {
		if short := shortMethod(method); short != method && want[short] == "" {
			t.Errorf("%s: the test does not know it", method)
		}
	}
	if err := (rule{}).allow(v1.Role_ROLE_ADMIN, "/x/y"); err == nil {
		t.Error("a method without a rule may be called")
	}
}

// TestRefusedOnTheWire calls as somebody who may not, and finds the refusal in the audit log.
func TestRefusedOnTheWire(t *testing.T) {
	r := newRig(t)
	viewer := v1.NewObjectServiceClient(r.as(v1.Role_ROLE_VIEWER))
	_, err := viewer.Apply(t.Context(), &v1.ApplyRequest{Object: wrap(zone("lgwan"))})
	wantCode(t, err, codes.PermissionDenied, "role viewer", "Apply", "role admin")
	if _, err := viewer.List(t.Context(), &v1.ListRequest{Kind: v1.Kind_KIND_ZONE}); err != nil {
		t.Error(err)
	}
	records := r.audited()
	if len(records) != 1 || records[0].Phase != "refused" || records[0].Who != "user/someone" || records[0].Method != "ObjectService/Apply" {
		t.Errorf("audit: %+v", records)
	}
	host := v1.NewObjectServiceClient(r.dialPeopleAsHost("kvm1", "uid"))
	_, err = host.List(t.Context(), &v1.ListRequest{Kind: v1.Kind_KIND_ZONE})
	wantCode(t, err, codes.PermissionDenied, "role host")
}
