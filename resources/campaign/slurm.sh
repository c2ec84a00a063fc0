#!/bin/sh
# A campaign in eight parts as a Slurm array: sbatch slurm.sh
# When all are done: dmavet merge results/part-* --out results/whole
#SBATCH --array=1-8
#SBATCH --cpus-per-task=2
#SBATCH --mem=2G
#SBATCH --time=02:00:00
#SBATCH --requeue
set -u
dir=results/part-$SLURM_ARRAY_TASK_ID
# A task that was requeued goes on where it was.
if [ -e "$dir/campaign.json" ]; then
	dmavet campaign --resume "$dir"
else
	dmavet campaign --module ref:ncdma --device ncdma --fault map,nth=1..200 --fault alloc,nth=1..8 --cases 208 \
		--shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --run-dir "$dir"
fi
code=$?
# 1 is findings: the merge says so. Anything else is trouble of this part.
[ "$code" -eq 1 ] && code=0
exit "$code"
