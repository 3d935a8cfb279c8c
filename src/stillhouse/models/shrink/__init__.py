"""Students made from teachers: what every kind of student that is cut out of another model is made of.

    families      what each family calls its parts; a table, to which a family is added by a row
    skeleton      a family's table laid over one model's configuration and tensor shapes: how large is it in another shape
    shapes        a target (parameters, bytes, memory, speed) -> a shape
    importance    which neurons, heads, channels and layers matter, in one pass over some rows
    depth         which layers to keep
    cut           keep them, and copy the weights
    vocabulary    keep the tokens that the data uses, in tokenizer and model alike
    factorise     a narrower table of embeddings, for families that have a projection behind it
    projected     BERT with such a projection, which is an ELECTRA
    fresh         a new shape with random weights, started from the teacher where shapes allow

The first three know no torch: `validate` asks them.
"""
