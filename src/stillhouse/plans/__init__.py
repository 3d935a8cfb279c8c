"""Plans: one recipe that becomes several runs.

    sweep, ablation     the same recipe with other settings, or with one part left out
    assistants, generations, phases, tasks, chain     runs that learn from, or go on from, each other's students
    rounds              train, see where the student fails, label that, train on
    tune                search, judged on rows set aside; the winner is measured once on the held-out rows

A plan writes recipes and reads results; it never touches tensors.  Each run is an ordinary run folder in <plan>/runs/, and
takes over whatever stage another one has finished from the same inputs: data are prepared once, the teacher is
fine-tuned and asked once.
"""
