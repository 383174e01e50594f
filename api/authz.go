package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"daybreak/api/pki"
	v1 "daybreak/proto/daybreak/v1"
)

// rule says who may call a method, and how the call is treated.
type rule struct {
	// roles that may call it. A method without a rule may be called by nobody.
	roles []v1.Role
	// nobody: it may be called without a certificate.
	nobody bool
	// audited: it leaves an intent and a result in the audit log.
	audited bool
	// late: the service begins the audit itself, once it knows that the caller is somebody. Others leave no line: they
	// could fill the disk. They are counted, and some are logged.
	late bool
	// changes: when it fails halfway, something may have been changed all the same.
	changes bool
}

// newRules is the whole of authorization: a line for each method.
func newRules() map[string]rule {
	const (
		host, admin, operator, viewer = v1.Role_ROLE_HOST, v1.Role_ROLE_ADMIN, v1.Role_ROLE_OPERATOR, v1.Role_ROLE_VIEWER
	)
	agents := rule{roles: []v1.Role{host}}
	look := rule{roles: []v1.Role{admin, operator, viewer}}
	operate := rule{roles: []v1.Role{admin, operator}, audited: true, changes: true}
	change := rule{roles: []v1.Role{admin}, audited: true, changes: true}
	anybody := rule{roles: []v1.Role{host, admin, operator, viewer}}
	rules := map[string]rule{
		v1.ObjectService_Get_FullMethodName:    look,
		v1.ObjectService_List_FullMethodName:   look,
		v1.ObjectService_Watch_FullMethodName:  look,
		v1.ObjectService_Apply_FullMethodName:  change,
		v1.ObjectService_Delete_FullMethodName: change,

		v1.ClaimService_Claim_FullMethodName:   operate,
		v1.ClaimService_Release_FullMethodName: operate,
		v1.ClaimService_Defer_FullMethodName:   operate,
		v1.ClaimService_Wait_FullMethodName:    operate,
		v1.ClaimService_Keep_FullMethodName:    operate,

		v1.DesktopService_Explain_FullMethodName: look,
		v1.PlanService_Plan_FullMethodName:       look,
		// A screen may show personal data: whoever looks leaves a trace.
		v1.DesktopService_Screenshot_FullMethodName: {roles: operate.roles, audited: true},

		v1.AdminService_CreateToken_FullMethodName: change,
		v1.AdminService_DrainHost_FullMethodName:   change,
		v1.AdminService_Info_FullMethodName:        look,

		v1.EnrolService_Enrol_FullMethodName: {roles: anybody.roles, nobody: true, audited: true, late: true},
		v1.EnrolService_Renew_FullMethodName: {roles: anybody.roles, audited: true},

		v1.AgentService_Watch_FullMethodName:         agents,
		v1.AgentService_Report_FullMethodName:        agents,
		v1.AgentService_GetManifest_FullMethodName:   agents,
		v1.AgentService_GetChunks_FullMethodName:     agents,
		v1.AgentService_Answer_FullMethodName:        agents,
		v1.AgentService_Build_FullMethodName:         agents,
		v1.AgentService_MissingChunks_FullMethodName: agents,
		v1.AgentService_PutChunks_FullMethodName:     agents,
		v1.AgentService_FindPeers_FullMethodName:     agents,

		healthv1.Health_Check_FullMethodName: anybody,
		healthv1.Health_List_FullMethodName:  anybody,
		healthv1.Health_Watch_FullMethodName: anybody,

		reflectv1.ServerReflection_ServerReflectionInfo_FullMethodName:      look,
		reflectv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: look,
	}
	maps.Copy(rules, imageRules(look, change))
	return rules
}

// imageRules are those of versions and of the moves between them.
func imageRules(look, change rule) map[string]rule {
	upload := rule{roles: change.roles}
	return map[string]rule{
		v1.ImageService_MissingChunks_FullMethodName: upload,
		// Chunks that no version names change nothing; the version that names them is audited.
		v1.ImageService_PutChunks_FullMethodName:      upload,
		v1.ImageService_CreateVersion_FullMethodName:  change,
		v1.ImageService_Publish_FullMethodName:        change,
		v1.ImageService_Build_FullMethodName:          change,
		v1.ImageService_Seal_FullMethodName:           change,
		v1.ImageService_Retire_FullMethodName:         change,
		v1.ImageService_CollectGarbage_FullMethodName: change,
		v1.ImageService_Usage_FullMethodName:          look,
		v1.ImageService_Diff_FullMethodName:           look,
		// The content of an image may hold licences and secrets: only who may replace it may carry it away.
		v1.ImageService_GetManifest_FullMethodName: {roles: upload.roles, audited: true},
		v1.ImageService_GetChunks_FullMethodName:   upload,

		v1.RolloutService_Start_FullMethodName:    change,
		v1.RolloutService_RollBack_FullMethodName: change,
		v1.RolloutService_Pause_FullMethodName:    change,
		v1.RolloutService_Resume_FullMethodName:   change,
	}
}

// allow says whether the rule lets the role in, and if not, why.
func (r rule) allow(role v1.Role, method string) error {
	if slices.Contains(r.roles, role) {
		return nil
	}
	var may []string
	for _, allowed := range r.roles {
		may = append(may, pki.RoleName(allowed))
	}
	if len(may) == 0 {
		return fmt.Errorf("nobody may call %s", method)
	}
	return fmt.Errorf("a certificate of role %s may not call %s; that takes role %s",
		pki.RoleName(role), method[strings.LastIndex(method, "/")+1:], strings.Join(may, " or "))
}
